//! Which expressions are cheap, and for how much data.
//!
//! # The argument
//! Nothing in jaq bounds an evaluation, so an expression is only evaluated in this process if its text proves that it ends soon. The
//! proof is an upper bound of the work, computed along the expression's term:
//!
//! 1. **It ends.** Definitions, `reduce`, `foreach`, labels, `..` and updates are not cheap, and of the functions only those in
//!    `signature`, none of which goes on for longer than its input does. What is left has no way to repeat itself but `.[]`, which runs
//!    once for each value of something that is already there.
//! 2. **Sizes.** Values are measured as `value::measure` does: 16 for each value and key, and the bytes of texts. For each term there
//!    is a [`Flow`]: how many outputs it has, how large each is, how large all are together, and how much work they take, as
//!    polynomials in the size of the term's input. `.[]` yields at most a 16th as many values as the size, and together they are no
//!    larger than what they came from; so what is done with each item of a list is linear, and a product of two generators square.
//!    What repeats text (`*` by a number that is not in the expression) is not cheap. A variable is a constant: as large as the data
//!    for those given, and as large as what it was bound to for others.
//! 3. **Work.** A unit is what handling one byte takes at most; a step of the interpreter is [`STEP`] units. Making a value costs its
//!    size, so memory is bounded by the same number. An expression is cheap for data of a size at which its work is at most [`WORK_MAX`],
//!    and at most [`SIZE_MAX`]; the coefficients count as well, so that `.+.|.+.|.+.|…`, which doubles with each three bytes of text, is
//!    not cheap at any size.
//! 4. **Stack.** jaq calls itself for each level of a term, when it runs and when its iterators are dropped, and for each level of a
//!    value, when it is compared, printed or dropped. A term has at most [`LEVELS_MAX`] levels, where a function that runs an
//!    expression counts as [`CALL_LEVELS`], and the data at most [`CHEAP_DEPTH_MAX`]; a level of a term adds at most three to a value. A
//!    test evaluates the deepest on a stack of 1 MiB in a build without optimisation: half of what any thread of the engine has.
//! 5. **It does not panic.** The functions of jaq that do (`length` of the smallest integer, parts of dates out of range) are replaced
//!    or not cheap.

use std::collections::BTreeSet;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Pattern, Term};
use jaq_core::ops::Math;
use jaq_core::path::Part;

use super::cost::{Bound, Flow};
use super::signature::{self, AS_JSON, SCALAR, STEP, steps};

/// Deepest data of a cheap evaluation.
pub(super) const CHEAP_DEPTH_MAX: usize = 64;
/// Most levels of a cheap expression's term.
const LEVELS_MAX: usize = 64;
/// How many levels a function is that runs an expression: as many as there are in the deepest definition of one.
const CALL_LEVELS: usize = 8;
/// The most data that any cheap expression is evaluated on, input and variables together.
const SIZE_MAX: usize = 64 << 10;
/// The least that is worth it.
const SIZE_MIN: usize = 1 << 10;
/// The most work of a cheap evaluation: a few tens of milliseconds at the very worst, and a thousandth of that for ordinary data.
const WORK_MAX: f64 = (1_u64 << 25) as f64;
/// Longest number in a cheap expression, in digits.
const DIGITS_MAX: usize = 32;

/// Up to which size of its data an expression is cheap; none, when it never is.
pub(super) fn size_max(term: &Term<&str>, variables: &[String]) -> Option<usize> {
    let sizes = std::iter::successors(Some(SIZE_MAX), |size| Some(size / 2));
    sizes.take_while(|size| *size >= SIZE_MIN).find(|size| work(term, variables, *size as f64) <= WORK_MAX)
}

/// The most work that a term can make of data up to a size, from and to JSON included.
fn work(term: &Term<&str>, variables: &[String], size: f64) -> f64 {
    let known = variables.iter().map(|name| (name.clone(), size)).collect();
    let mut walk = Walk { size, variables: known, level: 0 };
    match walk.term(term, size) {
        Some(flow) => (flow.work + flow.each * 2.0 + Bound::constant(4.0 * size)).at(size),
        None => f64::INFINITY,
    }
}

/// The variables that a term mentions, without `$`, those that it binds itself among them.
pub(super) fn mentioned<'a>(term: &Term<&'a str>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    mention(term, &mut names);
    names
}

fn mention<'a>(term: &Term<&'a str>, names: &mut BTreeSet<&'a str>) {
    let mut parts: Vec<&Term<&'a str>> = Vec::new();
    match term {
        Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Arr(None) => {}
        Term::Var(name) => {
            names.insert(name.strip_prefix('$').unwrap_or(name));
        }
        Term::Str(_, pieces) => parts.extend(pieces.iter().filter_map(|piece| match piece {
            StrPart::Term(term) => Some(term),
            StrPart::Str(_) | StrPart::Char(_) => None,
        })),
        Term::Arr(Some(term)) | Term::Neg(term) | Term::Label(_, term) => parts.push(term),
        Term::Obj(entries) => {
            parts.extend(entries.iter().flat_map(|(key, value)| std::iter::once(key).chain(value)));
        }
        Term::BinOp(left, operator, right) => {
            parts.extend([&**left, &**right]);
            if let BinaryOp::Pipe(Some(pattern)) = operator {
                keys(pattern, &mut parts);
            }
        }
        Term::Fold(_, of, pattern, arguments) => {
            parts.push(of);
            parts.extend(arguments);
            keys(pattern, &mut parts);
        }
        Term::TryCatch(tried, caught) => {
            parts.extend(std::iter::once(tried).chain(caught).map(|term| &**term))
        }
        Term::IfThenElse(branches, otherwise) => {
            parts.extend(branches.iter().flat_map(|(condition, then)| [condition, then]));
            parts.extend(otherwise.as_deref());
        }
        Term::Def(definitions, term) => {
            parts.extend(definitions.iter().map(|definition| &definition.body));
            parts.push(term);
        }
        Term::Call(_, arguments) => parts.extend(arguments),
        Term::Path(of, path) => {
            parts.push(of);
            parts.extend(
                path.0
                    .iter()
                    .flat_map(|(part, _)| match part {
                        Part::Index(key) => [Some(key), None],
                        Part::Range(from, to) => [from.as_ref(), to.as_ref()],
                    })
                    .flatten(),
            );
        }
    }
    for part in parts {
        mention(part, names);
    }
}

/// The terms in a pattern.
fn keys<'t, 'a>(pattern: &'t Pattern<&'a str>, parts: &mut Vec<&'t Term<&'a str>>) {
    match pattern {
        Pattern::Var(_) => {}
        Pattern::Arr(items) => items.iter().for_each(|item| keys(item, parts)),
        Pattern::Obj(entries) => {
            for (key, item) in entries {
                parts.push(key);
                keys(item, parts);
            }
        }
    }
}

/// The walk along a term.
struct Walk {
    /// How large the data is at most.
    size: f64,
    /// The variables that are known, and how large each is at most.
    variables: Vec<(String, f64)>,
    level: usize,
}

impl Walk {
    /// What a term comes to; none, when it is not cheap. `input` is how large its input is at most.
    fn term(&mut self, term: &Term<&str>, input: f64) -> Option<Flow> {
        let levels = match term {
            Term::Call(_, arguments) if !arguments.is_empty() => CALL_LEVELS,
            _ => 1,
        };
        if self.level + levels > LEVELS_MAX || !input.is_finite() {
            return None;
        }
        self.level += levels;
        let flow = self.known_term(term, input);
        self.level -= levels;
        flow
    }

    fn known_term(&mut self, term: &Term<&str>, input: f64) -> Option<Flow> {
        Some(match term {
            Term::Id => Flow { count: Bound::ONE, each: Bound::SIZE, total: Bound::SIZE, work: steps(1.0) },
            Term::Num(digits) if digits.len() <= DIGITS_MAX => Flow::one(SCALAR, steps(4.0)),
            Term::Str(format, parts) => self.text(format.as_deref(), parts, input)?,
            Term::Arr(None) => Flow::one(SCALAR, steps(2.0)),
            Term::Arr(Some(items)) => signature::collect(self.term(items, input)?),
            Term::Obj(entries) => self.object(entries, input)?,
            Term::Neg(term) => {
                let f = self.term(term, input)?;
                Flow::many(f.count, SCALAR, f.work + f.count * (4.0 * STEP))
            }
            Term::BinOp(left, operator, right) => self.operation(left, operator, right, input)?,
            Term::TryCatch(tried, None) => {
                let f = self.term(tried, input)?;
                let message = self.message(f);
                f.plus_work(message + steps(4.0))
            }
            Term::TryCatch(tried, Some(caught)) => {
                let f = self.term(tried, input)?;
                let message = self.message(f);
                let caught = self.term(caught, message.at(input))?;
                let raised = Flow { count: Bound::ONE, each: message, total: message, work: message };
                f.and(raised.then(caught)).plus_work(steps(4.0))
            }
            Term::IfThenElse(branches, otherwise) => {
                let mut flow = match otherwise {
                    Some(otherwise) => self.term(otherwise, input)?,
                    None => self.term(&Term::Id, input)?,
                };
                for (condition, then) in branches.iter().rev() {
                    let condition = self.term(condition, input)?;
                    let either = self.term(then, input)?.join(flow).plus_work(steps(4.0));
                    flow = either.times(condition.count).plus_work(condition.work + steps(2.0));
                }
                flow
            }
            Term::Call(name, arguments) => self.call(name, arguments, input)?,
            Term::Var(name) => {
                let size = self.variable(name)?;
                let each = Bound::constant(size);
                Flow { count: Bound::ONE, each, total: each, work: steps(2.0) }
            }
            Term::Path(of, path) => self.path(of, &path.0, input)?,
            // `..`, numbers of many digits, labels, `reduce`, `foreach`, definitions, and what jaq may yet invent.
            _ => return None,
        })
    }

    fn variable(&self, name: &str) -> Option<f64> {
        let name = name.strip_prefix('$')?;
        self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, size)| *size)
    }

    /// How large the message of an error is at most: it may have two of the values in it that a term makes, as JSON.
    fn message(&self, f: Flow) -> Bound {
        let variables: f64 = self.variables.iter().map(|(_, size)| *size).fold(self.size, f64::max);
        (f.work + Bound::SIZE + Bound::constant(variables)) * (2.0 * AS_JSON) + Bound::constant(256.0)
    }

    /// A text with expressions in it: their outputs as text in all combinations, added up from the right.
    fn text(
        &mut self,
        format: Option<&str>,
        parts: &[StrPart<&str, Term<&str>>],
        input: f64,
    ) -> Option<Flow> {
        let formatted = match format {
            None => signature::as_json(1.0),
            Some(format) => signature::of_input(format)?,
        };
        let mut sum = Flow::one(SCALAR, steps(2.0));
        for part in parts.iter().rev() {
            let part = match part {
                StrPart::Str(text) => Flow::one(SCALAR + Bound::constant(text.len() as f64), steps(2.0)),
                StrPart::Char(_) => Flow::one(SCALAR + Bound::constant(4.0), steps(2.0)),
                StrPart::Term(term) => self.term(term, input)?.then(formatted),
            };
            sum = added(part, sum);
        }
        Some(sum)
    }

    fn object(&mut self, entries: &[(Term<&str>, Option<Term<&str>>)], input: f64) -> Option<Flow> {
        let mut sum = Flow::one(SCALAR, steps(2.0));
        for (key, value) in entries.iter().rev() {
            let (key, value) = match (key, value) {
                (Term::Var(name), None) => {
                    let text = SCALAR + Bound::constant(name.len() as f64);
                    (Flow::one(text, steps(2.0)), self.term(key, input)?)
                }
                (key, None) => {
                    let key = self.term(key, input)?;
                    let found = Flow::one(Bound::SIZE, signature::index(key.each));
                    (key, found.times(key.count).plus_work(key.work))
                }
                (key, Some(value)) => (self.term(key, input)?, self.term(value, input)?),
            };
            sum = added(added(key, value).plus_work(steps(4.0)), sum);
        }
        Some(sum)
    }

    fn operation(
        &mut self,
        left: &Term<&str>,
        operator: &BinaryOp<&str>,
        right: &Term<&str>,
        input: f64,
    ) -> Option<Flow> {
        let l = self.term(left, input)?;
        if let BinaryOp::Pipe(pattern) = operator {
            let each = l.each.at(input);
            return match pattern {
                None => Some(l.then(self.term(right, each)?).plus_work(l.count * STEP)),
                Some(pattern) => self.bound(l, pattern, right, each, input),
            };
        }
        let r = self.term(right, input)?;
        let pairs = l.count * r.count;
        let both = l.work + l.count * r.work + pairs * (4.0 * STEP);
        // What each pair of values takes that is gone through once.
        let sizes = l.total * r.count + l.count * r.total;
        Some(match operator {
            BinaryOp::Comma => l.and(r).plus_work(steps(2.0)),
            BinaryOp::Alt => l.and(r).plus_work((l.count + Bound::ONE) * STEP),
            BinaryOp::Or | BinaryOp::And => {
                Flow::many(l.count * r.count.join(Bound::ONE), SCALAR, both + l.count * (4.0 * STEP))
            }
            BinaryOp::Cmp(_) => Flow::many(pairs, SCALAR, both + sizes * 2.0),
            BinaryOp::Math(Math::Add) => added(l, r),
            BinaryOp::Math(Math::Sub) => {
                // Of two arrays: each item of one is looked for among those of the other.
                let search = sizes * 8.0 + l.total * r.total * (1.0 / 128.0);
                Flow {
                    count: pairs,
                    each: l.each.join(SCALAR),
                    total: sizes + pairs * SCALAR,
                    work: both + search,
                }
            }
            BinaryOp::Math(Math::Div) => {
                // Of two texts: one is split by the other.
                let parts = l.each * signature::PARTS + SCALAR;
                let split = l.each * STEP + r.each + steps(8.0) + parts;
                Flow::many(pairs, parts, both + pairs * split)
            }
            BinaryOp::Math(Math::Rem) => Flow::many(pairs, SCALAR, both + sizes),
            BinaryOp::Math(Math::Mul) => {
                // A text is repeated as often as a number says, so one of both must be known.
                let times = literal(left).or_else(|| literal(right))?.max(1.0);
                let each = l.each.join(r.each) * times + SCALAR;
                Flow::many(pairs, each, both + pairs * each)
            }
            // Updates.
            _ => return None,
        })
    }

    /// `left as pattern | right`
    fn bound(
        &mut self,
        left: Flow,
        pattern: &Pattern<&str>,
        right: &Term<&str>,
        each: f64,
        input: f64,
    ) -> Option<Flow> {
        let before = self.variables.len();
        let right = if self.bind(pattern, each) { self.term(right, input) } else { None };
        let names = self.variables.len() - before;
        self.variables.truncate(before);
        let taken = left.each * 4.0 + steps(8.0 * (names as f64 + 1.0));
        Some(right?.plus_work(taken).times(left.count).plus_work(left.work))
    }

    /// Adds the variables of a pattern, each as large as the whole at most. Whether the pattern is cheap.
    fn bind(&mut self, pattern: &Pattern<&str>, each: f64) -> bool {
        match pattern {
            Pattern::Var(name) => match name.strip_prefix('$') {
                Some(name) => {
                    self.variables.push((name.to_owned(), each.max(SCALAR.at(0.0))));
                    true
                }
                None => false,
            },
            Pattern::Arr(items) => {
                items.iter().all(|item| matches!(item, Pattern::Var(_)) && self.bind(item, each))
            }
            Pattern::Obj(entries) => entries
                .iter()
                .all(|(key, item)| is_plain(key) && matches!(item, Pattern::Var(_)) && self.bind(item, each)),
        }
    }

    fn call(&mut self, name: &str, arguments: &[Term<&str>], input: f64) -> Option<Flow> {
        match arguments {
            [] => signature::of_input(name),
            [argument] if signature::runs_on_items(name, 1) => {
                let items = signature::iterate();
                let argument = self.term(argument, items.each.at(input))?;
                signature::of_items(name, items.then(argument))
            }
            [argument] if name == "with_entries" => {
                let entries = signature::entries();
                let argument = self.term(argument, entries.each.at(input))?;
                Some(signature::with_entries(entries.then(argument)))
            }
            [of, condition] if matches!(name, "any" | "all") => {
                let of = self.term(of, input)?;
                let condition = self.term(condition, of.each.at(input))?;
                Some(signature::any_or_all(of.then(condition)))
            }
            _ => {
                let flows: Option<Vec<Flow>> =
                    arguments.iter().map(|argument| self.term(argument, input)).collect();
                signature::of_filters(name, &flows?)
            }
        }
    }

    /// The indices are computed from the input of the whole: once to see whether there is only one, and again for each value that
    /// they are taken of. So indices within indices double the work with each level.
    fn path(
        &mut self,
        of: &Term<&str>,
        parts: &[(Part<Term<&str>>, jaq_core::path::Opt)],
        input: f64,
    ) -> Option<Flow> {
        let head = self.term(of, input)?;
        let mut flow = head;
        let (mut ways, mut indices) = (Bound::ONE, Bound::ZERO);
        for (part, _) in parts {
            let mut taken = Vec::new();
            let made = match part {
                Part::Range(None, None) => signature::iterate(),
                Part::Index(key) if is_plain(key) => {
                    Flow { count: Bound::ONE, each: Bound::SIZE, total: Bound::SIZE, work: steps(4.0) }
                }
                Part::Index(key) => {
                    let key = self.term(key, input)?;
                    taken.push(key);
                    // How large the key is at most is a constant here: it does not depend on what it is looked up in.
                    same_size(signature::index(Bound::constant(key.each.at(input))))
                }
                Part::Range(from, to) => {
                    for end in [from, to].into_iter().flatten() {
                        taken.push(self.term(end, input)?);
                    }
                    same_size(Bound::SIZE + steps(8.0))
                }
            };
            for index in taken {
                indices = indices + ways * (index.work + steps(4.0));
                ways = ways * index.count;
            }
            flow = flow.then(made);
        }
        indices = indices + ways * (steps(4.0) * parts.len() as f64);
        Some(flow.times(ways).plus_work((head.count + Bound::ONE) * indices))
    }
}

fn same_size(work: Bound) -> Flow {
    Flow { count: Bound::ONE, each: Bound::SIZE, total: Bound::SIZE, work }
}

/// `left + right`, in all combinations.
fn added(left: Flow, right: Flow) -> Flow {
    let pairs = left.count * right.count;
    let total = left.total * right.count + left.count * right.total;
    let work = left.work + left.count * right.work + pairs * (4.0 * STEP) + total;
    Flow { count: pairs, each: left.each + right.each, total, work }
}

/// The value of a number in the text of an expression.
fn literal(term: &Term<&str>) -> Option<f64> {
    match term {
        Term::Num(digits) if digits.len() <= DIGITS_MAX => digits.parse().ok(),
        _ => None,
    }
}

/// Whether a term is a text or a number as it stands there.
fn is_plain(term: &Term<&str>) -> bool {
    match term {
        Term::Str(None, parts) => parts.iter().all(|part| !matches!(part, StrPart::Term(_))),
        Term::Num(digits) => digits.len() <= DIGITS_MAX,
        _ => false,
    }
}
