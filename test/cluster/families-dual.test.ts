// A cluster whose pods and services have addresses of both families.
import "./family-dual.ts";
import { tryFamily } from "./families.ts";

tryFamily();
