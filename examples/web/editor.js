// The scratch document: CodeMirror bound to a root text of the same session, with everybody's cursors.
import { defaultKeymap } from '@codemirror/commands'
import { markdown } from '@codemirror/lang-markdown'
import { EditorState } from '@codemirror/state'
import { EditorView, keymap, placeholder } from '@codemirror/view'
import { yCollab, yUndoManagerKeymap } from 'y-codemirror.next'

export function openEditor (parent, text, awareness) {
  return new EditorView({
    parent,
    state: EditorState.create({
      doc: text.toString(),
      extensions: [
        keymap.of([...yUndoManagerKeymap, ...defaultKeymap]),
        EditorView.cspNonce.of(document.querySelector('meta[name="csp-nonce"]')?.content ?? ''),
        markdown(),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ 'aria-label': 'Scratch document' }),
        placeholder('Notes that everybody in this session writes together'),
        yCollab(text, awareness)
      ]
    })
  })
}
