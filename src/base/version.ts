// The version of every program in this package. package.json says the same; test/architecture.test.ts compares them.
// It is a constant so that neither a bundle nor a test has to find a file to know it.
export const softwareVersion = "0.1.0";
