// Real MCP clients, in a Node process driven over pipes: version 1 of the SDK, and version 2, which speaks 2026-07-28 too.
import { Client as Old } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport as OldTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { ElicitRequestSchema, ResourceUpdatedNotificationSchema } from '@modelcontextprotocol/sdk/types.js'
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { serve } from '../../interop/js/commands.mjs'

const clients = new Map()
const INFO = { name: 'test', version: '1.0.0' }
const CAPABILITIES = { capabilities: { elicitation: {} } }

const made = {
  async sdk (entry, url) {
    const client = new Old(INFO, CAPABILITIES)
    client.setRequestHandler(ElicitRequestSchema, request => entry.answer(request.params))
    client.setNotificationHandler(ResourceUpdatedNotificationSchema, heard => { entry.heard.push(heard.params.uri) })
    await client.connect(new OldTransport(url))
    return client
  },
  async client (entry, url) {
    const client = new Client(INFO, { ...CAPABILITIES, versionNegotiation: { mode: 'auto' } })
    client.setRequestHandler('elicitation/create', async request => entry.answer(request.params))
    client.setNotificationHandler('notifications/resources/updated', async heard => { entry.heard.push(heard.params.uri) })
    await client.connect(new StreamableHTTPClientTransport(url))
    return client
  }
}

serve({
  async open ({ name, url, kind, said = [] }) {
    const entry = { heard: [], asked: [] }
    entry.answer = params => {
      entry.asked.push(params)
      return { action: 'accept', content: said[entry.asked.length - 1] ?? {} }
    }
    entry.client = await made[kind](entry, new URL(`${url}/mcp`))
    clients.set(name, entry)
    return entry.client.getServerVersion().name
  },
  async insist ({ url, kind, tool, given }) { // calls a tool again and again, with new connections, until the run has ended
    for (let tries = 1; ; tries++) {
      const entry = { heard: [], answer: () => ({ action: 'cancel' }) }
      try {
        entry.client = await made[kind](entry, new URL(`${url}/mcp`))
        const options = { timeout: 10_000 }
        const call = { name: tool, arguments: given }
        const answer = kind === 'sdk' ? await entry.client.callTool(call, undefined, options) : await entry.client.callTool(call, options)
        if (answer.structuredContent?.status === 'completed') return { tries, text: answer.structuredContent.text }
      } catch {
        await new Promise(resolve => setTimeout(resolve, 30))
      } finally {
        entry.client?.close().catch(() => {})
      }
    }
  },
  async tools ({ name }) { return (await clients.get(name).client.listTools()).tools.map(tool => tool.name) },
  async resources ({ name }) { return (await clients.get(name).client.listResources()).resources.map(each => each.uri) },
  call: ({ name, tool, given }) => clients.get(name).client.callTool({ name: tool, arguments: given }),
  async read ({ name, uri }) { return (await clients.get(name).client.readResource({ uri })).contents[0].text },
  async follow ({ name, uri }) {
    const { client } = clients.get(name)
    if (client.listen && client.getNegotiatedProtocolVersion?.() !== '2025-11-25') await client.listen({ resourceSubscriptions: [uri] })
    else await client.subscribeResource({ uri })
  },
  state ({ name }) {
    const { heard, asked } = clients.get(name)
    return { heard, asked }
  },
  close: ({ name }) => clients.get(name).client.close()
})
