// Drives the four front ends of examples/gateways in a real Chromium. Prints what it saw as JSON.
import { DESK, launch, shot } from '../browser/browser.mjs'

const [url] = process.argv.slice(2)
const browser = await launch()
const page = await browser.newPage(DESK)
const seen = { errors: [] }
page.on('pageerror', error => seen.errors.push(String(error)))
page.on('console', message => { if (message.type() === 'error') seen.errors.push(message.text()) })
await page.goto(url)
const names = ['use-chat', 'ag-ui', 'tanstack', 'editor']
const frame = name => page.frames().find(each => each.url().includes(`/${name}.html`))
const shown = name => frame(name).$$eval('li', items => items.map(item => [item.className, item.textContent.trim()]))
const until = async (what, condition) => {
  for (const end = Date.now() + 30000; ;) {
    const all = await Promise.all(names.map(name => shown(name).catch(() => [])))
    if (condition(all)) return all
    if (Date.now() > end) throw new Error(`${what}: ${JSON.stringify(all)}; ${seen.errors}`)
    await page.waitForTimeout(50)
  }
}
/** Wait until a run was stopped; return what it has written: all pages may show the same for a moment before that. */
async function cancelled (service) {
  for (;;) {
    const { runs: [found] } = await (await fetch(`${service}/v1/runs?status=cancelled`)).json()
    if (found) {
      const { messages } = await (await fetch(`${service}/v1/sessions/${found.session}/messages`)).json()
      return messages.find(message => message.id === found.run.output).parts.map(part => part.text).join('').trim()
    }
    await page.waitForTimeout(50)
  }
}
const same = all => all.every(each => JSON.stringify(each) === JSON.stringify(all[0]))
for (const name of names) await frame(name).waitForSelector('input')

// each of them asks; all of them show the question and the answer
for (const [index, name] of names.entries()) {
  const said = `one two three from ${name}`
  await frame(name).fill('input', said)
  await frame(name).press('input', 'Enter')
  if (index === 0) {
    await until('streaming', all => all[0].some(([role, text]) => role === 'assistant' && text.includes('one')))
    await shot(page, 'streaming.png')
  }
  await until(name, all => same(all) && all[0].length === 2 * index + 2 && all[0].at(-1)[1] === `You said: ${said}`)
}
await shot(page, 'all.png')

// useChat is reloaded in the middle of an answer
const long = Array.from({ length: 30 }, (_, index) => `word${index}`).join(' ')
await frame('use-chat').fill('input', long)
await frame('use-chat').press('input', 'Enter')
await until('long', all => all[0].at(-1)[1].includes('word3'))
await frame('use-chat').evaluate(() => location.reload())
await until('reloaded', all => all[0].length === 10 && all[0].at(-1)[1].includes('word6') && !all[0].at(-1)[1].includes('word29'))
await until('end', all => same(all) && all[0].at(-1)[1] === `You said: ${long}`)

// stopped from another front end
await frame('use-chat').fill('input', long)
await frame('use-chat').press('input', 'Enter')
await until('long again', all => all[0].length === 12 && all[0].at(-1)[1].includes('word3'))
const [stopping] = await Promise.all([page.waitForRequest(request => request.method() === 'POST'), frame('tanstack').click('#stop')])
const ended = await cancelled(new URL(stopping.url()).origin)
seen.final = await until('stopped', all => same(all) && all[0].length === 12 && all[0].at(-1)[1] === ended)
await page.waitForTimeout(1000)
seen.later = await until('still the same', same)
await page.setViewportSize({ width: 420, height: 900 })
await shot(page, 'narrow.png', { fullPage: true })
console.log(JSON.stringify(seen))
await browser.close()
