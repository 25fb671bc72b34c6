// Names of preview hosts: random enough that nobody finds one by trying, and good to say on a telephone.
import { randomInt } from "node:crypto";

const first = (
  "amber brave bright brisk calm clever cosy crisp dapper eager early fair fancy fine fleet fond free fresh gentle glad " +
  "golden grand happy hardy honest jolly keen kind lively lucky merry mild neat nimble noble patient polite proud quick " +
  "quiet rapid ready royal rustic shiny silent silver simple smooth snowy solid spry steady sunny swift tidy tiny vivid " +
  "warm wise witty young zesty mellow"
).split(" ");
const second = (
  "acorn badger beacon birch bison breeze brook canyon cedar cherry cliff clover comet coral crane dune eagle ember falcon " +
  "fern finch fjord fox glacier grove harbour hare hazel heron island ivory jasper juniper lagoon lark lemon lily linden " +
  "lynx maple meadow moose oak olive orchid otter owl pebble pine plum poppy prairie raven reef river robin sparrow spruce " +
  "summit swan thistle tulip willow wren"
).split(" ");
/** Without those that are mistaken for others. */
const signs = "23456789bcdfghjkmnpqrstvwxz";

/** `brave-otter-7k2mq`: 36 bits. */
export function newHostName(): string {
  const pick = (words: readonly string[]): string => words[randomInt(words.length)] ?? "";
  const tail = Array.from({ length: 5 }, () => signs[randomInt(signs.length)]).join("");
  return `${pick(first)}-${pick(second)}-${tail}`;
}
