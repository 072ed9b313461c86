// A front end as frameworks' servers are: Express with its usual compression, which hands everything on to the service.
import { request } from 'node:http'
import express from 'express'
import compression from 'compression'

const upstream = new URL(process.argv[2])
const front = express()
front.use(compression())
front.use((asked, answer) => {
  const passed = request(upstream, { path: asked.originalUrl, method: asked.method, headers: { ...asked.headers, 'accept-encoding': 'identity' } }, response => {
    answer.writeHead(response.statusCode, response.headers)
    response.pipe(answer)
  })
  passed.on('error', () => answer.destroy())
  answer.on('close', () => passed.destroy())
  asked.pipe(passed)
})
const server = front.listen(0, '127.0.0.1', () => console.log(`on http://127.0.0.1:${server.address().port}`))
