// Bundles the pages into one folder of static files: node build.mjs OUT
import fs from 'node:fs'
import path from 'node:path'
import { build } from 'esbuild'

const out = path.resolve(process.argv[2])
const here = import.meta.dirname
const pages = ['use-chat.jsx', 'ag-ui.js', 'tanstack.js', 'editor.js']
fs.mkdirSync(out, { recursive: true })
await build({
  entryPoints: pages.map(page => path.join(here, page)),
  outdir: out,
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  charset: 'utf8',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"development"' }, // StrictMode does everything twice then: a test of its own
  logLevel: 'warning'
})
for (const name of ['index.html', 'style.css']) fs.copyFileSync(path.join(here, name), path.join(out, name))
for (const page of pages) {
  const name = path.parse(page).name
  fs.writeFileSync(path.join(out, `${name}.html`), fs.readFileSync(path.join(here, 'panel.html'), 'utf8').replaceAll('NAME', name))
}
