// Bundles the page into one folder of static files: node build.mjs OUT
// With another release of Hocuspocus' provider: node build.mjs OUT FOLDER-OF-THE-PACKAGE
import fs from 'node:fs'
import path from 'node:path'
import { build } from 'esbuild'

const [out, provider] = process.argv.slice(2).map(each => path.resolve(each))
const here = import.meta.dirname
const own = name => path.join(here, 'node_modules', name)
fs.mkdirSync(out, { recursive: true })
await build({
  entryPoints: [path.join(here, 'page.js')],
  splitting: true, // Monaco is a file of its own, and its styles are page.css
  outdir: out,
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  charset: 'utf8',
  logLevel: 'warning',
  alias: provider ? { '@hocuspocus/provider': provider, yjs: own('yjs') } : {} // there must be one Yjs in a page
})
for (const name of ['index.html', 'style.css']) fs.copyFileSync(path.join(here, name), path.join(out, name))
for (const [name, from] of [['quill.css', 'quill/dist/quill.snow.css'], ['blocknote.css', '@blocknote/core/dist/style.css']]) {
  fs.copyFileSync(own(from), path.join(out, name))
}
