// The browser of all tests, which draws as little as it can: to draw without a graphics card takes half a core for each
// page on which something moves, or in which somebody asks at every frame whether something has come.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(import.meta.dirname, '../interop/js/package.json'))
const { chromium } = require('playwright-core')
/** The first one has no windows and takes half the time of the others. */
const executablePath = ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium', '/usr/bin/google-chrome'].find(file => fs.existsSync(file))
const POLL_MS = 50

export const launch = () => chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--in-process-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
})

/** How somebody looks at a page unless a test says otherwise: at a desk, with nothing that moves. */
export const DESK = { viewport: { width: 1280, height: 800 }, reducedMotion: 'reduce' }

/** Wait until a function is true in a page; asked now and then, not at every frame, for which the page would draw one. */
export const until = (page, condition, argument, options) => page.waitForFunction(condition, argument, { polling: POLL_MS, ...options })

/** Take a picture into the folder that SHOTS names, for somebody who wants to look; tests do not. */
export async function shot (page, name, options) {
  if (process.env.SHOTS) await page.screenshot({ path: path.join(process.env.SHOTS, name), ...options })
}
