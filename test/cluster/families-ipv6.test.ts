// A cluster of IPv6 alone, and laptops of IPv4 alone and of IPv6 alone.
import "./family-ipv6.ts";
import { tryFamily } from "./families.ts";

tryFamily();
