// Monaco as its makers bind it, loaded by the page only when somebody opens it: it is as large as all the others.
import * as monaco from 'monaco-editor/esm/vs/editor/editor.api.js'
import { MonacoBinding } from 'y-monaco'
import * as Y from 'yjs'
import { artifact, awareness } from './place.js'

/** The styles that Monaco's modules import, which esbuild writes beside the page: lines are measured with them. */
const styled = () => new Promise((resolve, reject) => {
  const sheet = Object.assign(document.createElement('link'), { rel: 'stylesheet', href: 'page.css', onload: resolve, onerror: reject })
  document.head.append(sheet)
})

/** The binding draws carets without names; whose they are is for the page to say. */
const named = () => {
  const sheet = document.head.appendChild(document.createElement('style'))
  const draw = () => {
    sheet.textContent = [...awareness.getStates()].filter(([, { user }]) => user).map(([client, { user }]) => {
      const caret = `.yRemoteSelectionHead-${Number(client)}`
      const color = CSS.supports('color', user.color) ? user.color : '#b45309'
      return `${caret} { border-color: ${color} } ${caret}::after { content: ${JSON.stringify(user.name || 'somebody')}; background: ${color} }`
    }).join('\n')
  }
  awareness.on('change', draw)
  draw()
}

export async function openMonaco (parent) {
  await styled()
  named()
  const box = parent.appendChild(document.createElement('div'))
  box.className = 'monaco'
  const model = monaco.editor.createModel('', 'plaintext')
  model.setEOL(monaco.editor.EndOfLineSequence.LF) // a text has one character at the end of a line, on each system
  const editor = monaco.editor.create(box, {
    model, ariaLabel: 'Text', automaticLayout: true, editContext: false, minimap: { enabled: false }, wordWrap: 'on'
  })
  return new MonacoBinding(artifact('text', Y.Text), model, new Set([editor]), awareness)
}
