// What people are told above the conversation: copies that the service did not take, and trouble it has.
import { html, nothing } from 'lit-html'

const items = copy => copy.items.map(({ what, text }) => `${what}: ${text}`).join('\n\n')

function refused (copy, session) {
  const time = new Date(copy.at).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' })
  return html`
    <section class="notice aside" aria-label="Not taken by the service">
      <p role="alert"><b>The service did not take something you wrote</b> (${copy.why}). It is kept on this device, and nobody else has it.</p>
      <details><summary>What it was (${time})</summary>
        ${copy.items.map(({ what, text }) => html`<p class="label">${what}</p><pre tabindex="0">${text}</pre>`)}</details>
      <p class="actions"><button type="button" class="copy" @click=${() => navigator.clipboard?.writeText(items(copy))}>Copy</button>
        <button type="button" class="discard" @click=${() => session.discard(copy.db)}>Throw away</button></p>
    </section>`
}

export function notices (session) {
  const trouble = session.ready && !session.provider.synced && session.trouble
  return html`${trouble ? html`<p class="notice" role="alert">The service says: ${trouble}. What you write is kept on this device.</p>` : nothing}
    ${session.aside.map(copy => refused(copy, session))}`
}
