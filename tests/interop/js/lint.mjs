// usage: node lint.mjs FILE    Lints an OpenAPI document with Redocly's rules; says nothing if there is nothing to say.
import { createConfig, lint } from '@redocly/openapi-core'

const config = await createConfig({
  extends: ['recommended-strict'],
  rules: {
    'operation-operationId-unique': 'error',
    'operation-description': 'off', // a summary is often all there is to say
    'no-ambiguous-paths': 'error',
    'path-parameters-defined': 'error',
    'security-defined': 'error',
    'tag-description': 'error',
    'operation-tag-defined': 'error',
    'operation-4xx-response': 'off', // what needs no token and no parameters is never refused
    'no-invalid-media-type-examples': 'error'
  }
})
const problems = await lint({ ref: process.argv[2], config })
for (const problem of problems) console.log(`${problem.severity} ${problem.ruleId}: ${problem.message} ${problem.location[0]?.pointer ?? ''}`)
process.exitCode = problems.length ? 1 : 0
