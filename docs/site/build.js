// Builds the site into .cache/site/html, and checks every link and anchor of the site. Asks no other host.
//
// DOCS_SOURCE is the address of the source tree, such as https://git.example.com/roomcast/blob/main: links to files that are not
// pages lead there. Without it they become plain text.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'vitepress';
import { PAGES, place } from './pages.js';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const ROOT = join(HERE, '../..');
const SITE = join(ROOT, '.cache/site');
const SOURCE = process.env.DOCS_SOURCE;
const findings = [];

/** Translates a link of a page to the form in which the site has it. */
function link(page, whole, text, href) {
  if (/^(#|[a-z]+:)/.test(href)) return whole;
  const [file, anchor] = href.split('#');
  const path = posix.normalize(posix.join(posix.dirname(page), file));
  if (PAGES.includes(path)) return `[${text}](${place(file)}${anchor === undefined ? '' : `#${anchor}`})`;
  if (!existsSync(join(ROOT, path))) findings.push(`${page}: ${href} leads nowhere`);
  if (path.startsWith('docs/') && path.endsWith('.md')) findings.push(`${page}: ${path} is not in docs/site/pages.js`);
  return SOURCE ? `[${text}](${SOURCE}/${path})` : text;
}

/** Writes a page where VitePress reads it. Blocks of code stay as they are. */
function stage(page) {
  const blocks = readFileSync(join(ROOT, page), 'utf8').split(/^(```[^]*?^```$)/m);
  const text = blocks.map((block, at) => (at % 2 ? block : block.replace(/\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)/g, (...found) => link(page, ...found))));
  const target = join(SITE, 'pages', place(page));
  mkdirSync(dirname(target), { recursive: true });
  // Double braces in these pages are text of contracts, not expressions of Vue.
  writeFileSync(target, `::: v-pre\n${text.join('')}\n:::\n`);
}

const html = (folder) =>
  readdirSync(folder, { recursive: true }).filter((file) => file.endsWith('.html') && file !== '404.html');

/** Returns the links whose page or anchor the built site does not have. */
function check() {
  const folder = join(SITE, 'html');
  const pages = new Map(html(folder).map((file) => [`/${file}`, readFileSync(join(folder, file), 'utf8')]));
  const ids = new Map([...pages].map(([page, text]) => [page, new Set([...text.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id))]));
  let links = 0;
  for (const [page, text] of pages) {
    for (const [, href] of text.matchAll(/<a\b[^>]*?\shref="([^"]+)"/g)) {
      const url = new URL(href.replaceAll('&amp;', '&'), `http://site${page}`);
      if (url.host !== 'site') continue;
      links += 1;
      const path = url.pathname.endsWith('/') ? `${url.pathname}index.html` : url.pathname.replace(/(\.html)?$/, '.html');
      if (!pages.has(path)) findings.push(`${page}: ${href} leads nowhere`);
      else if (url.hash && !ids.get(path).has(decodeURIComponent(url.hash.slice(1)))) findings.push(`${page}: ${href} has no such section`);
    }
  }
  return `${pages.size} pages, ${links} links`;
}

rmSync(SITE, { recursive: true, force: true });
const missing = readdirSync(join(ROOT, 'docs')).filter((file) => file.endsWith('.md') && !PAGES.includes(`docs/${file}`));
findings.push(...missing.map((file) => `docs/${file} is not in docs/site/pages.js`));
PAGES.forEach(stage);
// The pages are built outside this folder, and import Vue.
symlinkSync(join(HERE, 'node_modules'), join(SITE, 'node_modules'));
await build(HERE);
const summary = check();
if (findings.length) {
  console.error([...new Set(findings)].join('\n'));
  process.exit(1);
}
console.log(`${summary}: ${join(SITE, 'html/index.html')}`);
