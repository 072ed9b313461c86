// Hocuspocus as its documentation starts it: `node hocuspocus.mjs PORT [DATABASE]`.
import { Server } from '@hocuspocus/server'
import { SQLite } from '@hocuspocus/extension-sqlite'

const [port, database] = process.argv.slice(2)
const extensions = database ? [new SQLite({ database })] : []
await new Server({ port: Number(port), address: '127.0.0.1', quiet: true, extensions }).listen()
console.log('listening')
