// Other people's carets, as the editor may be given them. What peers say of themselves is theirs: a position that cannot
// be read would take all carets away from the editor, and a colour ends up in a style.
import * as Y from 'yjs'

const FALLBACK = '#475569'
const colour = (text, otherwise) => /^#[0-9a-f]{6}([0-9a-f]{2})?$/i.test(text) ? text : otherwise

/** A presence whose carets can all be shown; whatever else it does is done by `awareness`. */
export function readable (awareness) {
  return Object.assign(Object.create(awareness), {
    getStates: () => new Map([...awareness.getStates()].map(([client, state]) => [client, shown(state, awareness.doc)]))
  })
}

function shown (state, doc) {
  const color = colour(state.user?.color, FALLBACK)
  const user = { name: String(state.user?.name ?? 'somebody').slice(0, 60), color, colorLight: colour(state.user?.colorLight, `${color}33`) }
  try {
    const [anchor, head] = [state.cursor.anchor, state.cursor.head].map(each => Y.createRelativePositionFromJSON(each))
    for (const each of [anchor, head]) Y.createAbsolutePositionFromRelativePosition(each, doc) // throws if it is none
    return { ...state, user, cursor: { anchor, head } }
  } catch {
    return { ...state, user, cursor: null }
  }
}
