// Fields in which several people type at once: what of a text has changed, and where everybody's caret stays.
import { noChange } from 'lit-html'
import { Directive, directive } from 'lit-html/directive.js'

const isHigh = unit => unit >= 0xd800 && unit < 0xdc00
const isLow = unit => unit >= 0xdc00 && unit < 0xe000

/** What makes one text of another: from `at` on, `gone` units go and `come` stands there. No character is cut in two. */
export function difference (before, after) {
  const most = Math.min(before.length, after.length)
  let at = 0
  while (at < most && before[at] === after[at]) at++
  let same = 0
  while (same < most - at && before[before.length - 1 - same] === after[after.length - 1 - same]) same++
  if (at && isHigh(before.charCodeAt(at - 1))) at--
  if (same && isLow(before.charCodeAt(before.length - same))) same--
  return { at, gone: before.length - same - at, come: after.slice(at, after.length - same) }
}

/** Where a place of a text is after it has changed. */
export const moved = (place, { at, gone, come }) =>
  place <= at ? place : place >= at + gone ? place + come.length - gone : at + come.length

const known = new WeakMap() // field to what stood in it when it was last looked at

class Typed extends Directive {
  render () { return noChange }

  update ({ element: field }, [text]) {
    if (field.value !== text) {
      const change = difference(field.value, text)
      const places = document.activeElement === field ? [field.selectionStart, field.selectionEnd] : null
      field.value = text
      if (places) field.setSelectionRange(...places.map(place => moved(place, change)))
    }
    known.set(field, text)
    return noChange
  }
}

/** What stands in a field, as its `.value`: the caret stays where it was in the text. */
export const typed = directive(Typed)

/** Write into a shared text what somebody has just changed in a field, also if others have changed the text since. */
export function typeIn (field, text) {
  const before = known.get(field) ?? ''
  const { at, gone, come } = difference(before, field.value)
  const meanwhile = difference(before, text.toString())
  const [begin, end] = [at, at + gone].map(place => moved(place, meanwhile))
  known.set(field, field.value)
  text.doc.transact(() => {
    text.delete(begin, end - begin)
    text.insert(begin, come)
  })
}
