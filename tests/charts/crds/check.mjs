// Checks custom resources (a JSON list on standard input) against their definitions: validators check the values, and
// TypeScript types find fields that a definition does not have.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const MODELS = {
  'monitoring.coreos.com/v1': '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1',
  'gateway.networking.k8s.io/v1': '@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1',
};
const here = dirname(fileURLToPath(import.meta.url));
const objects = JSON.parse(readFileSync(0, 'utf8'));
const mistakes = [];

for (const object of objects) {
  const module = await import(`${MODELS[object.apiVersion]}/${object.kind}`);
  try {
    new module[object.kind](object).validate();
  } catch (error) {
    mistakes.push(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}

// A program with each object as a literal of its type.
const lines = objects.map(
  (object, at) =>
    `export const o${at}: import('${MODELS[object.apiVersion]}/${object.kind}').I${object.kind} = ${JSON.stringify(object)};`,
);
const file = join(here, 'objects.mts');
const options = { noEmit: true, strict: true, skipLibCheck: true, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, types: [] };
const host = ts.createCompilerHost(options);
const { readFile, fileExists, getSourceFile } = host;
const text = lines.join('\n');
host.readFile = (name) => (name === file ? text : readFile.call(host, name));
host.fileExists = (name) => name === file || fileExists.call(host, name);
host.getSourceFile = (name, ...rest) =>
  name === file ? ts.createSourceFile(name, text, ts.ScriptTarget.Latest) : getSourceFile.call(host, name, ...rest);
for (const { messageText } of ts.getPreEmitDiagnostics(ts.createProgram([file], options, host))) {
  mistakes.push(ts.flattenDiagnosticMessageText(messageText, ' '));
}
for (const mistake of mistakes) console.log(mistake);
process.exitCode = mistakes.length > 0 ? 1 : 0;
