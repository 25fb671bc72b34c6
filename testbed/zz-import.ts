import { importImage } from "./cluster.ts";
await importImage("/work/main/dist/images/telepresence-0.1.0.tar");
