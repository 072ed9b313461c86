// Lets the conformance suite run on Node 20: it imports globSync, which node:fs has since 22, and does not use it here.
import { register } from 'node:module'

const fs = 'data:text/javascript,' + encodeURIComponent(`
export * from 'node:fs'
export { default } from 'node:fs'
export const globSync = () => []`)
register('data:text/javascript,' + encodeURIComponent(`
export async function resolve (specifier, context, next) {
  const asked = specifier === 'fs' && context.parentURL?.includes('@modelcontextprotocol/conformance')
  return asked ? { url: ${JSON.stringify(fs)}, shortCircuit: true } : next(specifier, context)
}`))
