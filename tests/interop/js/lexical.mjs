// Lexical as its makers bind it to Yjs, without a screen. Documents go in and out as updates.
import { CodeHighlightNode, CodeNode } from '@lexical/code'
import { createHeadlessEditor } from '@lexical/headless'
import { $toggleLink, AutoLinkNode, LinkNode } from '@lexical/link'
import { ListItemNode, ListNode } from '@lexical/list'
import { HeadingNode, QuoteNode } from '@lexical/rich-text'
import { TableCellNode, TableNode, TableRowNode } from '@lexical/table'
import { HorizontalRuleNode } from '@lexical/extension'
import { createYjsBinding, getAnchorAndFocusCollabNodesForUserState, syncLexicalUpdateToYjs, syncYjsChangesToLexical } from '@lexical/yjs'
import { $createParagraphNode, $createTextNode, $getRoot, $isTextNode } from 'lexical'
import * as Y from 'yjs'
import { sparesOthers } from '../../../examples/editors/undo.js'
import { serve } from './commands.mjs'

const NODES = [HorizontalRuleNode, HeadingNode, QuoteNode, ListNode, ListItemNode, CodeNode, CodeHighlightNode, LinkNode, AutoLinkNode, TableNode, TableRowNode, TableCellNode]
const hex = bytes => Buffer.from(bytes).toString('hex')
const bytes = text => Buffer.from(text, 'hex')
const soon = () => new Promise(resolve => setTimeout(resolve, 0))
const editors = new Map()
const alone = { awareness: { getLocalState: () => null, getStates: () => new Map(), setLocalState () {}, on () {}, off () {} } }

const texts = () => {
  const found = []
  const look = node => { $isTextNode(node) ? found.push(node) : node.getChildren?.().forEach(look) }
  look($getRoot())
  return found
}

/** What a node is, without what follows from the rest. */
const said = ({ type, text, format, children, tag, listType, start, value, language, url, headerState }) => ({
  type, ...(text !== undefined && { text, format }), ...(tag && type === 'heading' && { tag }), ...(listType && { listType, start }),
  ...(type === 'listitem' && { value }), ...(language && { language }), ...(url && { url }), ...(headerState !== undefined && { headerState }),
  ...(children && { children: children.map(said) })
})

const commands = {
  async open ({ name, update, artifact, client, spares = true }) {
    const doc = new Y.Doc()
    if (client) doc.clientID = client
    Y.applyUpdate(doc, bytes(update))
    const failed = []
    const editor = createHeadlessEditor({ namespace: name, nodes: NODES, onError: error => { failed.push(String(error.stack)) } })
    const binding = createYjsBinding({ editor, id: 'root', doc, docMap: new Map([['root', doc]]), getXmlText: () => doc.getMap('artifacts').get(artifact).get('content') })
    const shared = binding.root.getSharedType()
    shared.observeDeep((events, { origin }) => {
      if (origin !== binding) syncYjsChangesToLexical(binding, alone, events, origin instanceof Y.UndoManager, () => {})
    })
    editor.registerUpdateListener(({ prevEditorState, editorState, dirtyLeaves, dirtyElements, normalizedNodes, tags }) => {
      syncLexicalUpdateToYjs(binding, alone, prevEditorState, editorState, dirtyElements, dirtyLeaves, normalizedNodes, tags)
    })
    editor.update(() => { binding.root.applyChildrenYjsDelta(binding, shared.toDelta()); binding.root.syncChildrenFromYjs(binding) }, { tag: 'collaboration', discrete: true })
    const undo = new Y.UndoManager(shared, { trackedOrigins: new Set([binding]), deleteFilter: spares ? sparesOthers(Y) : () => true })
    const written = []
    doc.on('update', (update, origin) => { if (origin !== 'told') written.push(update) })
    editors.set(name, { doc, editor, binding, written, undo, failed })
    await soon()
  },
  async apply ({ name, update }) {
    const { doc, failed } = editors.get(name)
    Y.applyUpdate(doc, bytes(update), 'told')
    await soon()
    if (failed.length > 0) throw new Error(failed.join('\n'))
  },
  take ({ name }) {
    const { written, failed } = editors.get(name)
    if (failed.length > 0) throw new Error(failed.join('\n'))
    const update = written.length > 0 ? hex(Y.mergeUpdates(written.splice(0))) : null
    return update
  },
  shown: ({ name }) => editors.get(name).editor.getEditorState().toJSON().root.children.map(said),
  async does ({ name, act, ...more }) {
    const { editor } = editors.get(name)
    editor.update(() => acts[act](more), { discrete: true })
    await soon()
  },
  async undo ({ name }) { editors.get(name).undo.undo(); await soon() },
  apart ({ name }) { editors.get(name).undo.stopCapturing() },
  caret ({ name, presence }) { // where it is drawn: the text, and how far into it
    const { binding, editor } = editors.get(name)
    return editor.read(() => {
      const found = getAnchorAndFocusCollabNodesForUserState(binding, presence)
      return ['anchor', 'focus'].map(end => [found[`${end}CollabNode`]?.getNode()?.getTextContent() ?? null, found[`${end}Offset`]])
    })
  },
  close ({ name }) { editors.delete(name) }
}

const acts = {
  type ({ text, at, letters }) { // in a text node
    const node = texts()[text % texts().length]
    const place = Math.min(at, node.getTextContentSize())
    node.spliceText(place, 0, letters)
  },
  remove ({ text, at, count }) {
    const node = texts()[text % texts().length]
    const place = Math.min(at, node.getTextContentSize())
    node.spliceText(place, Math.min(count, node.getTextContentSize() - place), '')
  },
  format ({ text, from, to, format }) {
    const node = texts()[text % texts().length]
    const size = node.getTextContentSize()
    const selection = node.select(Math.min(from, size), Math.min(to, size))
    selection.formatText(format)
  },
  link ({ text, url }) {
    const node = texts()[text % texts().length]
    node.select(0, node.getTextContentSize())
    $toggleLink(url)
  },
  split ({ text, at }) { // Enter
    const node = texts()[text % texts().length]
    node.select(Math.min(at, node.getTextContentSize()), Math.min(at, node.getTextContentSize())).insertParagraph()
  },
  append ({ letters }) { $getRoot().append($createParagraphNode().append($createTextNode(letters))) },
  drop ({ block }) { const all = $getRoot().getChildren(); if (all.length > 1) all[block % all.length].remove() }
}

serve(commands)
