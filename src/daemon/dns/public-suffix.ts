// Top-level domains that are also plausible names of namespaces. Names below them are shared with the public tree
// instead of taken from it. Every two-letter label is or may become a country's.
const words = new Set(
  (
    "academy accountant agency ai analytics app art auction auto baby band bank bar beer bet bid bike bio black " +
    "blog blue boo box broker build builders business buy cab cafe cam camera camp capital car cards care career cash " +
    "casino center chat cheap church city claims click clinic cloud club co coach codes coffee com community company " +
    "computer consulting contact cool country coupon courses credit cruises dance date day deal dealer deals " +
    "delivery demo dental design dev diet digital direct directory discount docs dog domains download earth edu eco " +
    "education email energy engineer engineering enterprises equipment esq events exchange expert express fail family " +
    "fan farm fashion feedback finance financial fish fit fitness flights fly foo food forum foundation free fun fund " +
    "furniture fyi gallery game games garden gift gifts global gmbh gold golf google gov graphics green gripe group " +
    "guide guru health help here homes host hosting hot house how icu inc info ink institute insurance insure int " +
    "investments io jobs kids kitchen land law lease legal life lighting limited link live llc loan loans lol love ltd " +
    "mail management map market marketing markets mba media meet meme men menu mil mobi moda money monster motorcycles " +
    "mov movie museum music name navy net network new news ninja now observer one online open org page partners parts " +
    "party pay pet phone photo photos pics pictures pink pizza place play plus poker press prime pro productions prof " +
    "promo properties property pub qpon quest racing radio read realty recipes red rent rentals repair report rest " +
    "review reviews rich rocks room rsvp run safe sale save school science scot search secure security select services " +
    "shop shopping show silk site ski skin sky smart soccer social software solar solutions space spot store storage " +
    "stream studio study style sucks supplies supply support surf systems talk tax taxi team tech technology tel theater " +
    "tickets tips tires today tools top tours town toys trade trading training travel trust tube university vacations " +
    "ventures vet video villas vip vision vote voting voyage wang watch weather webcam website wedding wiki win wine " +
    "work works world wow xyz yoga you zero zip zone"
  ).split(" "),
);

export function isPublicSuffix(label: string): boolean {
  return label.length === 2 || words.has(label);
}
