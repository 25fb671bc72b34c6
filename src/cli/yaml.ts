// The YAML library by its names: imported late (it costs more than the rest of the command line), and a late import of
// the library itself has no names once it is bundled.
export { parse, parseAllDocuments, stringify } from "yaml";
