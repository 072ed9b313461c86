// Opens what README's two browser quickstarts serve, in a real Chromium, and talks to the agent. Prints what it saw.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(import.meta.dirname, '../interop/js/package.json'))
const { chromium } = require('playwright-core')

const [stock, chat, shots] = process.argv.slice(2)
const executablePath = ['/usr/bin/chromium', '/usr/bin/google-chrome'].find(file => fs.existsSync(file))
const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
})
const errors = []
const open = async url => {
  const page = await (await browser.newContext()).newPage()
  page.on('pageerror', error => errors.push(String(error)))
  page.on('console', message => { if (message.type() === 'error' && !message.location().url.endsWith('/favicon.ico')) errors.push(message.text()) })
  await page.goto(url)
  return page
}
const say = async (page, text) => { await page.fill('input', text); await page.press('input', 'Enter') }
const shows = (page, text) => page.waitForFunction(text => document.body.innerText.includes(text), text)

const one = await open(stock)
const other = await open(stock)
await say(one, 'hello from stock Yjs')
await shows(one, 'Ann: hello from stock Yjs')
for (const page of [one, other]) await shows(page, 'parrot: You said: hello from stock Yjs')

const asking = await open(chat)
await asking.waitForSelector('input')
await say(asking, 'hello from useChat')
await shows(asking, 'assistant: You said: hello from useChat')
await shows(other, 'You said: hello from useChat')
await asking.reload()
await shows(asking, 'You said: hello from stock Yjs')
await one.screenshot({ path: path.join(shots, 'stock.png') })
await asking.screenshot({ path: path.join(shots, 'chat.png') })
await browser.close()
console.log(JSON.stringify({ errors }))
