// Durable Streams' reference server, with its streams on disk: node durable-streams.mjs PORT FOLDER
import fs from 'node:fs'
import { DurableStreamTestServer } from '@durable-streams/server'

const [port, dataDir] = process.argv.slice(2)
fs.mkdirSync(dataDir, { recursive: true })
await new DurableStreamTestServer({ host: '127.0.0.1', port: Number(port), dataDir }).start()
