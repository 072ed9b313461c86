/**
 * What undoing may take away in Lexical: no element and no text node in which somebody else has written.
 * Lexical's own `createUndoManager` takes a paragraph away with all that others wrote in it.
 * Items go in reverse, so what is one's own in an element has gone when it comes to the element.
 */
export const sparesOthers = Y => item => {
  const whole = item.parentSub === null ? item : item.parent._item // of a property, what has it
  const type = whole?.content instanceof Y.ContentType ? whole.content.type : null
  if (type instanceof Y.XmlText) return type.length === 0
  return !(type instanceof Y.Map && after(whole)?.content instanceof Y.ContentString)
}

const after = item => {
  let next = item.right
  while (next?.deleted) next = next.right
  return next
}
