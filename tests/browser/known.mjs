// The demo page of a service with tokens: who one is, and what is said of who wrote what.
import { DESK, launch, shot } from './browser.mjs'

const [url, session, ann, eve, looks] = process.argv.slice(2)
const browser = await launch()
const seen = { errors: [] }
const open = async token => {
  const page = await (await browser.newContext(DESK)).newPage()
  page.on('pageerror', error => seen.errors.push(String(error)))
  page.on('console', message => { if (message.type() === 'error') seen.errors.push(message.text()) })
  await page.goto(`${url}/?session=${session}${token ? `#token=${token}` : ''}`)
  return page
}
const first = await open(ann)
await first.waitForSelector('#status.good')
seen.address = first.url()
await first.fill('textarea', 'It is me')
await first.press('textarea', 'Enter')
const viewer = await open(looks)
await viewer.waitForSelector('#status.good')
await viewer.waitForSelector('.message .verified')
await viewer.waitForSelector('#present li[data-name="Ann"]')
seen.marks = await viewer.$$eval('.message', all => all.map(each => each.querySelector('.verified, .unverified')?.textContent))
seen.bottom = await first.$eval('main', main => main.getBoundingClientRect().bottom)
await shot(first, 'known.png')
await first.reload()
await first.waitForSelector('#status.good')
seen.kept = await first.$$eval('.message', all => all.length)
seen.looksOn = await viewer.textContent('.readonly')
await shot(viewer, 'looks-on.png')
console.log(JSON.stringify(seen))
await browser.close()
