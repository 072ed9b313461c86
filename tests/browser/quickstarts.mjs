// Opens what README's two browser quickstarts serve, in a real Chromium, and talks to the agent. Prints what it saw.
import { DESK, launch, shot, until } from './browser.mjs'

const [stock, chat] = process.argv.slice(2)
const browser = await launch()
const errors = []
const open = async url => {
  const page = await (await browser.newContext(DESK)).newPage()
  page.on('pageerror', error => errors.push(String(error)))
  page.on('console', message => { if (message.type() === 'error' && !message.location().url.endsWith('/favicon.ico')) errors.push(message.text()) })
  await page.goto(url)
  return page
}
const say = async (page, text) => { await page.fill('input', text); await page.press('input', 'Enter') }
const shows = (page, text) => until(page, text => document.body.innerText.includes(text), text)

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
await shot(one, 'stock.png')
await shot(asking, 'chat.png')
await browser.close()
console.log(JSON.stringify({ errors }))
