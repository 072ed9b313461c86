// Boxes that stay scrolled to their end while they grow, until somebody scrolls up in them.
const NEAR_PX = 40
const left = new WeakSet() // boxes somebody reads further up in

export function atEnd (box) {
  if (!box.dataset.sticky) {
    box.dataset.sticky = 'yes'
    box.addEventListener('scroll', () => {
      if (box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX) left.delete(box)
      else left.add(box)
    }, { passive: true })
    new ResizeObserver(() => toEnd(box)).observe(box)
  }
  toEnd(box)
}

function toEnd (box) {
  if (!left.has(box)) box.scrollTop = box.scrollHeight
}

/** Go to the end, wherever somebody was. */
export function follow (box) {
  left.delete(box)
  atEnd(box)
}
