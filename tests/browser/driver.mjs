// A Chromium for tests in Python: commands come as JSON lines on stdin, answers go as JSON lines to stdout.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { serve } from '../interop/js/commands.mjs'
import { DESK, launch } from './browser.mjs'

const require = createRequire(path.join(import.meta.dirname, '../interop/js/package.json'))
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
const patience = Number(process.argv[2]) * 1000

const browser = await launch()
const pages = new Map()

const commands = {
  async open ({ page: id, context = {}, beside, clock }) {
    const room = beside ? pages.get(beside).context : await browser.newContext({ ...DESK, ...context })
    const page = await room.newPage()
    page.setDefaultTimeout(patience)
    if (clock) await page.clock.install()
    const errors = []
    page.on('pageerror', error => errors.push(String(error)))
    page.on('console', message => { if (message.type() === 'error') errors.push(`${message.text()} ${message.location().url}`) })
    pages.set(id, { page, context: room, errors, cut: false })
    await page.route('**/v1/**', route => pages.get(id).cut === true ? route.abort() : route.continue())
    await page.routeWebSocket(/\/v1\/sync\//, socket => {
      if (pages.get(id).cut === 'silent') return // it is open, and nobody says anything
      if (pages.get(id).cut) return socket.close({ code: 1001 })
      const there = socket.connectToServer()
      let cut = false
      // what a page says before it hears of the cut is lost; sent on, the browser would complain of it on the console
      socket.onMessage(message => { if (!cut) there.send(message) })
      pages.get(id).hangUp = () => { cut = true; socket.close({ code: 1001 }); there.close() }
    })
  },
  /** Whether this page's way to the service is cut; 'silent' where it can still be connected to. */
  cut ({ page, cut }) {
    pages.get(page).cut = cut
    if (cut) pages.get(page).hangUp?.()
  },
  do: ({ page, method, args }) => pages.get(page).page[method](...args).then(result => ['object', 'function'].includes(typeof result) && !Array.isArray(result) ? null : result),
  async see ({ page, selector }) {
    const { page: tab, errors } = pages.get(page)
    await tab.waitForSelector(selector).catch(async error => {
      throw new Error(`${error.message}; the page says: ${await tab.evaluate('document.body.innerText')}; its errors: ${errors.join('\n')}`)
    })
  },
  async until ({ page, script }) {
    const { page: tab } = pages.get(page)
    for (const end = Date.now() + patience; ; await new Promise(resolve => setTimeout(resolve, 40))) {
      // not waitForFunction, whose eval the page's policy forbids; and a page that is being loaded has no answer yet
      if (await tab.evaluate(script).catch(() => false)) return
      if (Date.now() > end) throw new Error(`never true: ${script}; the page says: ${await tab.evaluate('document.body.innerText')}`)
    }
  },
  /** Let time go by for a page that began with `clock: true`. */
  pass: ({ page, ms }) => pages.get(page).page.clock.fastForward(ms),
  key: ({ page, key }) => pages.get(page).page.keyboard.press(key),
  errors: ({ page }) => pages.get(page).errors,
  async close ({ page }) {
    await pages.get(page).page.close()
    pages.delete(page)
  },
  /** What axe-core finds, each as `rule: the element`. */
  async axe ({ page }) {
    const { page: tab } = pages.get(page)
    // not as a script element, which the page's policy forbids
    if (!(await tab.evaluate(() => 'axe' in window))) await tab.evaluate(axe)
    const found = await tab.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }))
    return found.violations.flatMap(({ id, nodes }) => nodes.map(node => `${id}: ${node.html.slice(0, 160)} ${node.any[0]?.message ?? ''}`))
  }
}

serve(commands, () => browser.close())
