// The beginning of the page that a team shares.
import { render } from "preact";
import { Team } from "./team.tsx";

render(<Team />, document.body);
