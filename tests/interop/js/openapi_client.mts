// usage: node openapi_client.mjs URL    An application in TypeScript that knows the service by its OpenAPI document only.
import createClient from 'openapi-fetch'
import type { components, paths } from './schema.js'

declare const process: { argv: string[] }
type Run = components['schemas']['Run']

const client = createClient<paths>({ baseUrl: process.argv[2] ?? '' })

function must<Data>(answer: { data?: Data; error?: unknown; response: Response }): Data {
  if (answer.data === undefined) throw new Error(`${answer.response.status}: ${JSON.stringify(answer.error)}`)
  return answer.data
}

const session = must(await client.POST('/v1/sessions', { body: { id: 'trip/oslo', title: 'Oslo' } }))
const path = { name: session.id }
const message = must(
  await client.POST('/v1/sessions/{name}/messages', {
    params: { path },
    body: { parts: [{ type: 'text', text: 'Hei', state: 'done' }], role: 'user', agent: 'guide' }
  })
)
const runs: Run[] = must(await client.GET('/v1/sessions/{name}/runs', { params: { path } })).runs
const page = must(await client.GET('/v1/sessions/{name}/messages', { params: { path, query: { limit: 1 } } }))
const markdown = must(
  await client.GET('/v1/sessions/{name}/export', { params: { path, query: { format: 'markdown' } }, parseAs: 'text' })
)
const run = runs[0]
if (!run) throw new Error('nobody was asked')
const stopped = must(await client.POST('/v1/sessions/{name}/runs/{run}/cancel', { params: { path: { ...path, run: run.id } } }))
const refused = await client.GET('/v1/sessions/{name}', { params: { path: { name: 'nowhere' } } })
// @ts-expect-error: a route that is not there is no call that compiles
const missing = await client.GET('/v1/nowhere')
// @ts-expect-error: nor is a body without what is required
await client.POST('/v1/sessions/{name}/runs', { params: { path }, body: {} })

console.log(
  JSON.stringify({
    session: session.id,
    said: page.messages.map(each => each.id === message.id && each.seq),
    asked: run.request?.agent,
    stopped: stopped.status,
    markdown: String(markdown).split('\n')[0],
    problem: refused.error && { type: refused.error.type, status: refused.error.status, detail: refused.error.detail },
    missing: missing.response.status
  })
)
