// Draws diagrams by D2: reads {name: text} from standard input, writes {name: SVG}. Both schemes are in each SVG, with their
// background, and its fonts are within it: nothing is fetched.
import { readFileSync } from 'node:fs';
import { D2 } from '@terrastruct/d2';

const d2 = new D2();
const drawn = {};
for (const [name, text] of Object.entries(JSON.parse(readFileSync(0, 'utf8')))) {
    const { diagram, renderOptions } = await d2.compile(text, { layout: 'dagre', themeID: 0, darkThemeID: 200, pad: 16, noXMLTag: true });
    drawn[name] = await d2.render(diagram, renderOptions);
}
process.stdout.write(JSON.stringify(drawn), () => process.exit(0));
