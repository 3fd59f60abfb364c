/** The parts of js-yaml that are used: its loader and the schema without types. */
declare module 'js-yaml/lib/js-yaml/loader.js' {
  const loader: { safeLoad(text: string, options: { schema: unknown }): unknown };
  export default loader;
}
declare module 'js-yaml/lib/js-yaml/schema/failsafe.js' {
  const schema: unknown;
  export default schema;
}
