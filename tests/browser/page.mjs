// Drives the demo page in a real Chromium, as two people in two tabs would. Prints what it saw as JSON.
import { DESK, launch, shot, until } from './browser.mjs'

const [url, session] = process.argv.slice(2)
const browser = await launch()
const seen = { errors: [] }
const open = async (context, name) => {
  await context.addInitScript(name => {
    if (!localStorage.getItem('crdt-sessions/me')) localStorage.setItem('crdt-sessions/me', JSON.stringify({ id: name, name, color: name === 'Ann' ? '#4b3ff0' : '#c2410c' }))
  }, name)
  const page = await context.newPage()
  page.on('pageerror', error => seen.errors.push(String(error)))
  page.on('console', message => { if (message.type() === 'error') seen.errors.push(message.text()) })
  await page.goto(`${url}/?session=${session}`)
  await page.waitForSelector('#status.good')
  return page
}
const laptop = await browser.newContext(DESK)
const phone = await browser.newContext(DESK)
const ann = await open(laptop, 'Ann')
const bob = await open(phone, 'Bob')
await shot(ann, 'welcome.png')

// presence: each sees the other
for (const [page, other] of [[ann, 'Bob'], [bob, 'Ann']]) {
  await page.waitForSelector(`#present li[data-name="${other}"]`)
}

// tokens arrive live in both
const tokens = page => page.evaluate(() => new Promise(resolve => {
  const lengths = new Set()
  const timer = setInterval(() => {
    const answer = document.querySelector('.message.assistant')
    if (!answer) return
    lengths.add(answer.textContent.length)
    if (!answer.classList.contains('writing') && answer.querySelector('.text')) { clearInterval(timer); resolve(lengths.size) }
  }, 30)
}))
const watching = [tokens(ann), tokens(bob)]
await ann.fill('textarea', 'replay:openai-chat/deepseek-chat-emoji.sse')
await until(bob, () => [...document.querySelectorAll('.activity')].some(item => item.textContent === 'typing'))
await ann.press('textarea', 'Enter')
await ann.waitForSelector('.message.assistant.writing')
await bob.waitForSelector('.activity.streaming:not(:empty)')
await ann.waitForSelector('#present li.agent')
seen.presentForAnn = await ann.$$eval('#present li', items => items.length)
await ann.waitForTimeout(900)
await shot(ann, 'streaming.png')
seen.stepsSeen = await Promise.all(watching)

// an offline tab: its edits merge when it is back
await ann.locator('#offline').evaluate(box => box.click())
await ann.waitForSelector('#status.away')
await ann.fill('textarea', 'written offline')
await ann.press('textarea', 'Enter')
await ann.click('.cm-content')
await ann.keyboard.type('Ann offline. ')
await bob.click('.cm-content')
await bob.keyboard.type('Bob online. ')
await ann.waitForSelector('.waiting')
await until(ann, () => document.getElementById('status').textContent.includes('not synced'))
seen.bobSawOffline = await bob.evaluate(() => document.body.textContent.includes('written offline'))
await shot(ann, 'offline.png')
await ann.locator('#offline').evaluate(box => box.click())
await ann.waitForSelector('#status.good')
await until(bob, () => document.body.textContent.includes('written offline'))
for (const page of [ann, bob]) {
  await until(page, () => ['Ann offline.', 'Bob online.'].every(part => document.querySelector('.cm-content').textContent.includes(part)))
  await until(page, () => document.querySelectorAll('.waiting').length === 0)
}
await bob.waitForSelector('.cm-ySelectionCaret')
await until(bob, () => document.querySelectorAll('.message.assistant:not(.writing):has(.text)').length === 2, undefined, { timeout: 60000 })
await shot(bob, 'merged.png')

// anybody can stop an answer, and have it go on
await ann.fill('textarea', 'replay:openai-chat/groq-text-long.chunks.txt')
await ann.press('textarea', 'Enter')
await until(bob, () => (document.querySelector('.message.writing .text')?.textContent.length ?? 0) > 100)
await shot(bob, 'stop.png')
await bob.click('.message.writing .stop')
await until(ann, () => [...document.querySelectorAll('.message:last-of-type .note')].some(note => note.textContent === 'Stopped'))
const last = page => page.$eval('.message:last-of-type .text', text => text.textContent.length)
seen.stopped = await last(ann)
await ann.click('.message:last-of-type .actions button')
await until(bob, () => document.querySelectorAll('.message.writing').length === 1)
await until(bob, () => document.querySelectorAll('.message.writing').length === 0, undefined, { timeout: 60000 })
seen.wentOn = await last(bob)
seen.wentOnWith = await bob.$eval('.message:last-of-type .text', text => text.textContent.slice(-40))

// a person decides about a tool call
const patch = body => ann.evaluate(([session, body]) => fetch(`/v1/sessions/${session}`, { method: 'PATCH', headers: { 'Content-Type': 'application/json' }, body }), [session, body])
await patch('{"agent": "booker"}')
await ann.fill('textarea', 'Book me a seat')
await ann.press('textarea', 'Enter')
await bob.waitForSelector('.question button')
await shot(bob, 'approval.png')
await bob.click('.question button:first-of-type')
await until(ann, () => [...document.querySelectorAll('.note')].some(note => note.textContent.startsWith('Approved by')))
await until(ann, () => document.body.textContent.includes('Seat 12A is yours.'))
seen.approvedBy = await ann.$$eval('.note', notes => notes.map(note => note.textContent).find(text => text.startsWith('Approved by')))
await shot(ann, 'approved.png')

// looking back: an earlier state is shown to one and changes nothing for others; a named one is brought back for all
const count = page => page.$$eval('.message', items => items.length)
const now = await count(ann)
await patch('{"agent": ""}') // nobody answers
ann.on('dialog', dialog => dialog.accept('Before the detour'))
await ann.click('#history')
await until(ann, () => document.querySelector('#when')?.textContent.length > 5)
await ann.click('#keep')
await until(ann, () => document.querySelector('#when').textContent.includes('Before the detour'))
await until(ann, () => !document.querySelector('#fork')?.disabled) // it is there, and shown
await bob.fill('textarea', 'a detour nobody wants')
await bob.press('textarea', 'Enter')
await until(bob, () => document.body.textContent.includes('a detour nobody wants'))
seen.detourWhileLookingBack = await ann.evaluate(() => document.querySelector('#messages').textContent.includes('a detour nobody wants'))
await ann.locator('#slider').evaluate(slider => { slider.value = 0; slider.dispatchEvent(new Event('input', { bubbles: true })) })
await until(ann, now => document.querySelectorAll('.message').length < now, now)
seen.earliest = await count(ann)
seen.formWhileLookingBack = await ann.isVisible('textarea')
await ann.click('#history')
await until(ann, () => document.querySelector('#messages').textContent.includes('a detour nobody wants'))
await ann.click('#history')
await until(ann, () => document.querySelector('#when')?.textContent.length > 5)
const back = () => ann.locator('#slider').evaluate(slider => { slider.value--; slider.dispatchEvent(new Event('input', { bubbles: true })) })
for (let step = 0; step < 20 && !(await ann.textContent('#when')).includes('Before the detour'); step++) {
  await back()
  await ann.waitForTimeout(100)
}
await until(ann, () => document.querySelector('#when').textContent.includes('Before the detour'))
await until(ann, () => !document.querySelector('#messages').textContent.includes('a detour nobody wants'))
seen.since = await ann.textContent('#since')
await shot(ann, 'history.png')
await ann.click('#restore')
for (const page of [ann, bob]) await until(page, () => !document.querySelector('#messages').textContent.includes('a detour nobody wants'))
seen.restored = [await count(ann), await count(bob), now]

// a reload keeps everything
const text = page => page.evaluate(() => [...document.querySelectorAll('.message .text')].map(part => part.textContent))
const draft = page => page.evaluate(() => [...document.querySelectorAll('.cm-line')].map(line => line.childNodes).flatMap(nodes => [...nodes].filter(node => !node.classList?.contains('cm-ySelectionCaret')).map(node => node.textContent)).join(''))
const before = await text(bob)
await bob.reload()
await bob.waitForSelector('#status.good')
await until(bob, count => document.querySelectorAll('.message .text').length === count, before.length)
seen.reloadKeeps = JSON.stringify(await text(bob)) === JSON.stringify(before)
seen.texts = [await text(ann), await text(bob)]
seen.drafts = [await draft(ann), await draft(bob)]
seen.overflow = await ann.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth)

// a fork begins as the session was
ann.removeAllListeners('dialog')
ann.on('dialog', dialog => dialog.accept('forked'))
await ann.click('#history')
await until(ann, () => !document.querySelector('#fork')?.disabled)
await ann.click('#fork')
await until(ann, () => document.title.startsWith('forked'))
await until(ann, count => document.querySelectorAll('.message .text').length === count, before.length)
await ann.goto(`${url}/?session=${session}`)
await ann.waitForSelector('#status.good')

// a narrow screen
await bob.setViewportSize({ width: 390, height: 800 })
await bob.waitForTimeout(200)
seen.narrowOverflow = await bob.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth)
await shot(bob, 'narrow.png')
await phone.close()
await until(ann, () => !document.querySelector('#present li[data-name="Bob"]'))
console.log(JSON.stringify(seen))
await browser.close()
