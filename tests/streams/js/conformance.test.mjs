// The public conformance suite of Durable Streams, on the service that SERVICE names.
import { runConformanceTests } from '@durable-streams/server-conformance-tests'

const { SERVICE, LONG_POLL_MS, SUBSCRIPTIONS } = process.env
runConformanceTests({ baseUrl: SERVICE, longPollTimeoutMs: Number(LONG_POLL_MS), subscriptions: SUBSCRIPTIONS === 'yes' })
