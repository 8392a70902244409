import { defineConfig } from 'vitepress';
import { sidebar } from '../pages.js';

/** Returns the anchor of a heading, as Git hosts make it, so that a link works there too. */
const slugify = (heading) =>
  heading
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replace(/\s/g, '-');

export default defineConfig({
  title: 'roomcast',
  description: 'A Socket.IO server that you configure instead of coding',
  srcDir: '../../.cache/site/pages',
  outDir: '../../.cache/site/html',
  cacheDir: '../../.cache/site/vite',
  markdown: { anchor: { slugify } },
  themeConfig: {
    nav: [{ text: 'Documentation', link: '/docs/' }, { text: 'Changelog', link: '/CHANGELOG' }],
    sidebar,
    outline: [2, 3],
    search: { provider: 'local' },
  },
});
