// Bundles the page into one folder of static files, so that serving it needs no Node: node build.mjs OUT
import fs from 'node:fs'
import path from 'node:path'
import { build } from 'esbuild'

const out = path.resolve(process.argv[2])
const here = import.meta.dirname
fs.mkdirSync(out, { recursive: true })
await build({
  entryPoints: [path.join(here, 'app.js')],
  outfile: path.join(out, 'app.js'),
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  charset: 'utf8',
  legalComments: 'eof',
  logLevel: 'warning'
})
for (const name of ['index.html', 'style.css', 'icon.svg', 'worker.js']) fs.copyFileSync(path.join(here, name), path.join(out, name))
