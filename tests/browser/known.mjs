// The demo page of a service with tokens: who one is, and what is said of who wrote what.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(import.meta.dirname, '../interop/js/package.json'))
const { chromium } = require('playwright-core')

const [url, session, shots, ann, eve, looks] = process.argv.slice(2)
const executablePath = ['/usr/bin/chromium', '/usr/bin/google-chrome'].find(file => fs.existsSync(file))
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'] })
const seen = { errors: [] }
const open = async token => {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 } })).newPage()
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
await first.screenshot({ path: path.join(shots, 'known.png') })
await first.reload()
await first.waitForSelector('#status.good')
seen.kept = await first.$$eval('.message', all => all.length)
seen.looksOn = await viewer.textContent('.readonly')
await viewer.screenshot({ path: path.join(shots, 'looks-on.png') })
console.log(JSON.stringify(seen))
await browser.close()
