// Bundles the page into one folder of static files: node build.mjs OUT
import fs from 'node:fs'
import path from 'node:path'
import { build } from 'esbuild'

const out = path.resolve(process.argv[2])
const here = import.meta.dirname
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
  logLevel: 'warning'
})
for (const name of ['index.html', 'style.css']) fs.copyFileSync(path.join(here, name), path.join(out, name))
for (const [name, from] of [['quill.css', 'quill/dist/quill.snow.css'], ['blocknote.css', '@blocknote/core/dist/style.css']]) {
  fs.copyFileSync(path.join(here, 'node_modules', from), path.join(out, name))
}
