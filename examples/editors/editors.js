// Each editor as its makers bind it to Yjs. Nothing here knows of agents.
import { BlockNoteEditor } from '@blocknote/core'
import { EditorState } from '@codemirror/state'
import { EditorView, lineNumbers } from '@codemirror/view'
import { CodeHighlightNode, CodeNode } from '@lexical/code'
import { HorizontalRuleNode } from '@lexical/extension'
import { AutoLinkNode, LinkNode } from '@lexical/link'
import { ListItemNode, ListNode, registerList } from '@lexical/list'
import { HeadingNode, QuoteNode, registerRichText } from '@lexical/rich-text'
import { TableCellNode, TableNode, TableRowNode } from '@lexical/table'
import { createYjsBinding, syncCursorPositions, syncLexicalUpdateToYjs, syncYjsChangesToLexical } from '@lexical/yjs'
import { Editor } from '@tiptap/core'
import Collaboration from '@tiptap/extension-collaboration'
import CollaborationCaret from '@tiptap/extension-collaboration-caret'
import { TableKit } from '@tiptap/extension-table'
import StarterKit from '@tiptap/starter-kit'
import { $createParagraphNode, $getRoot, COMMAND_PRIORITY_EDITOR, createEditor, REDO_COMMAND, UNDO_COMMAND } from 'lexical'
import { schema } from 'prosemirror-markdown'
import { EditorState as ProseMirrorState } from 'prosemirror-state'
import { EditorView as ProseMirrorView } from 'prosemirror-view'
import Quill from 'quill'
import QuillCursors from 'quill-cursors'
import { yCollab } from 'y-codemirror.next'
import { yCursorPlugin, ySyncPlugin, yUndoPlugin } from 'y-prosemirror'
import { QuillBinding } from 'y-quill'
import * as Y from 'yjs'
import { artifact, awareness, doc, person, provider } from './place.js'
import { sparesOthers } from './undo.js'

/** By name: which artifact it edits, and how it is put into a box. */
export const editors = {
  codemirror: ['text', parent => {
    const text = artifact('text', Y.Text)
    const extensions = [lineNumbers(), EditorView.lineWrapping, EditorView.contentAttributes.of({ 'aria-label': 'Text' }), yCollab(text, awareness)]
    return new EditorView({ parent, state: EditorState.create({ doc: text.toString(), extensions }) })
  }],
  quill: ['text', parent => {
    Quill.register('modules/cursors', QuillCursors)
    const box = parent.appendChild(document.createElement('div'))
    const quill = new Quill(box, { theme: 'snow', modules: { cursors: true, toolbar: false } })
    return new QuillBinding(artifact('text', Y.Text), quill, awareness)
  }],
  monaco: ['text', async parent => (await import('./monaco.js')).openMonaco(parent)],
  prosemirror: ['prosemirror', parent => {
    const plugins = [ySyncPlugin(artifact('prosemirror', Y.XmlFragment)), yCursorPlugin(awareness), yUndoPlugin()]
    return new ProseMirrorView(parent, { state: ProseMirrorState.create({ schema, plugins }) })
  }],
  tiptap: ['tiptap', element => new Editor({
    element,
    extensions: [
      StarterKit.configure({ undoRedo: false }),
      TableKit,
      Collaboration.configure({ fragment: artifact('tiptap', Y.XmlFragment) }),
      CollaborationCaret.configure({ provider, user: person })
    ]
  })],
  blocknote: ['blocknote', parent => {
    const fragment = artifact('blocknote', Y.XmlFragment)
    const editor = BlockNoteEditor.create({ collaboration: { fragment, provider, user: person } })
    editor.mount(parent.appendChild(document.createElement('div')))
    return editor
  }],
  lexical: ['lexical', parent => {
    parent.className = 'lexical'
    const box = parent.appendChild(document.createElement('div'))
    box.contentEditable = 'true'
    const nodes = [HeadingNode, QuoteNode, ListNode, ListItemNode, CodeNode, CodeHighlightNode, LinkNode, AutoLinkNode, TableNode, TableRowNode, TableCellNode, HorizontalRuleNode]
    const editor = createEditor({ namespace: 'editors', nodes, onError: error => { throw error } })
    const content = artifact('lexical', Y.XmlText)
    const binding = createYjsBinding({ editor, id: 'lexical', doc, docMap: new Map([['lexical', doc]]), getXmlText: () => content })
    binding.cursorsContainer = parent.appendChild(Object.assign(document.createElement('div'), { className: 'lexical-carets' }))
    const shared = binding.root.getSharedType()
    shared.observeDeep((events, { origin }) => {
      if (origin !== binding) syncYjsChangesToLexical(binding, provider, events, origin instanceof Y.UndoManager)
    })
    editor.registerUpdateListener(({ prevEditorState, editorState, dirtyLeaves, dirtyElements, normalizedNodes, tags }) => {
      if (!tags.has('skip-collab')) {
        syncLexicalUpdateToYjs(binding, provider, prevEditorState, editorState, dirtyElements, dirtyLeaves, normalizedNodes, tags)
      }
    })
    registerRichText(editor)
    registerList(editor)
    editor.setRootElement(box)
    if (shared.length > 0) editor.update(() => { binding.root.applyChildrenYjsDelta(binding, shared.toDelta()); binding.root.syncChildrenFromYjs(binding) }, { tag: 'collaboration', discrete: true })
    editor.update(() => { if ($getRoot().isEmpty()) $getRoot().append($createParagraphNode()) }, { discrete: true })
    const steps = new Y.UndoManager(shared, { trackedOrigins: new Set([binding, null]), deleteFilter: sparesOthers(Y) })
    editor.registerCommand(UNDO_COMMAND, () => { steps.undo(); return true }, COMMAND_PRIORITY_EDITOR)
    editor.registerCommand(REDO_COMMAND, () => { steps.redo(); return true }, COMMAND_PRIORITY_EDITOR)
    // its carets want a name and a colour of their own in presence
    const seen = focusing => awareness.setLocalState({ anchorPos: null, focusPos: null, ...awareness.getLocalState(), name: person.name, color: person.color, focusing })
    box.onfocus = () => seen(true)
    box.onblur = () => seen(false)
    seen(false)
    awareness.on('update', () => syncCursorPositions(binding, provider))
    return editor
  }]
}
