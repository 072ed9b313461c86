// How tests in Python talk to a process of Node: commands come as JSON lines on stdin, answers go as JSON lines to stdout.
import readline from 'node:readline'

export function serve (commands, end = async () => {}) {
  readline.createInterface({ input: process.stdin }).on('line', async line => {
    const { call, command, ...options } = JSON.parse(line)
    try {
      process.stdout.write(JSON.stringify({ call, result: (await commands[command](options)) ?? null }) + '\n')
    } catch (error) {
      process.stdout.write(JSON.stringify({ call, error: String(error.stack) }) + '\n')
    }
  }).on('close', async () => {
    await end()
    process.exit(0)
  })
}
