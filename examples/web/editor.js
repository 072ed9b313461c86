// The notes: CodeMirror bound to a root text of the same session, with everybody's cursors.
import { defaultKeymap } from '@codemirror/commands'
import { Compartment, EditorState } from '@codemirror/state'
import { EditorView, keymap, placeholder } from '@codemirror/view'
import { yCollab, yUndoManagerKeymap } from 'y-codemirror.next'
import { readable } from './carets.js'

/** Show the notes of a session in `parent`; returns `{ allow(whether), close() }`. */
export function openEditor (parent, { doc, provider }) {
  const text = doc.getText('draft')
  const writing = new Compartment()
  const may = allowed => [EditorState.readOnly.of(!allowed), EditorView.editable.of(allowed)]
  let allowed = true
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc: text.toString(),
      extensions: [
        keymap.of([...yUndoManagerKeymap, ...defaultKeymap]),
        EditorView.cspNonce.of(document.querySelector('meta[name="csp-nonce"]')?.content ?? ''),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ 'aria-label': 'Notes' }),
        placeholder('Notes that everybody in this session writes together'),
        writing.of(may(true)),
        yCollab(text, readable(provider.awareness))
      ]
    })
  })
  return {
    allow (whether) {
      if (whether === allowed) return
      allowed = whether
      view.dispatch({ effects: writing.reconfigure(may(allowed)) })
    },
    close () { view.destroy() }
  }
}
