//! Replacing the pepper and the signing key while functions run.
//!
//! A rotation adds the new one, uses it once every function and every cache knows it, and drops an
//! old one once nothing made with it is pending. A pepper is dropped by the next rotation, since
//! devices stay known by it. The sign-in secret holds how far a rotation is. So each step is one
//! write to each secret, and a run that stopped in between is completed by the next.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_smithy_types::{DateTime, date_time::Format};
use serde::{Deserialize, Serialize};
use shared::{api::CACHE_LIFE, challenge::LONGEST_LIFETIME, current::NOTICED, token};

use crate::secrets::{
    Members, PEPPER, PRIVATE_KEY, PUBLIC_KEYS, SecretsError, new_pepper, required, text,
};

/// The member of the sign-in secret that holds how far the rotations are.
const ROTATION: &str = "ROTATION";

/// The member of the sign-in secret that holds the new key until it signs.
const NEXT_PRIVATE_KEY: &str = "NEXT_TOKEN_PRIVATE_KEY";

/// The longest that a verifier keeps our public keys: API Gateway's authorizer.
const KEY_SET_LIFE: Duration = Duration::from_hours(2);

/// The command's name in an event.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    Rotate,
}

/// A secret of the functions that can be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Pepper,
    SigningKey,
}

/// An operator's order to replace something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub what: What,
    /// Somebody else has it: it is replaced and dropped in one step.
    pub leaked: bool,
}

/// The rotations that are under way, or ended in this run.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rotations {
    pub pepper: Option<Status>,
    pub signing_key: Option<Status>,
}

/// The state of a rotation.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The last step that was taken.
    pub step: Step,
    /// The next one; none if the rotation has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
}

/// A step that is to come.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Next {
    pub step: Step,
    /// The earliest time: RFC 3339 in UTC.
    pub due: String,
}

/// A step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The functions know the new one: they accept the pepper, and publish the public key.
    Added,
    /// New codes and tokens are made with it.
    Used,
    /// The old one is gone.
    Dropped,
}

/// The content of [`ROTATION`].
#[derive(Default, Serialize, Deserialize)]
struct UnderWay {
    pepper: Option<Progress>,
    signing_key: Option<Progress>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Progress {
    step: Step,
    /// The time when both secrets had it, in seconds since 1970.
    since: u64,
}

/// Takes the steps that are due at `now` and those of the order. An order for something that is
/// being replaced already begins nothing new, unless it has leaked.
///
/// The sign-in secret is to be written first: `verify` knows a pepper before `signup` uses it.
/// Whatever of a rotation that is under way the other secret lacks is added to it.
pub fn advance(
    sign_in: &mut Members,
    signup: &mut Members,
    order: Option<Order>,
    now: SystemTime,
) -> Result<Rotations, SecretsError> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut under_way = read(sign_in)?;
    for what in What::ALL {
        let progress = under_way.of(what);
        if let Some(progress) = progress
            && copy(what, sign_in, signup)
        {
            // The run that took this step did not end. The functions have it from now on.
            progress.since = now;
        }
        let ordered = order.filter(|order| order.what == what);
        let step = match (ordered, *progress) {
            (Some(Order { leaked: true, .. }), _) => Some(replace(what, sign_in)?),
            (Some(_), None) => {
                expect_the_same(what, sign_in, signup)?;
                Some(add(what, sign_in, signup)?)
            }
            (Some(_), Some(progress)) if progress.next(what).is_none() => {
                Some(add(what, sign_in, signup)?)
            }
            (_, Some(progress)) => match progress.next(what) {
                Some((Step::Used, due)) if now >= due => Some(put_to_use(what, sign_in)?),
                Some((Step::Dropped, due)) if now >= due => Some(drop_old_key(sign_in)?),
                _ => None,
            },
            (None, None) => None,
        };
        if let Some(step) = step {
            *progress = Some(Progress { step, since: now });
            copy(what, sign_in, signup);
        }
    }
    write(sign_in, &under_way);
    Ok(Rotations {
        pepper: under_way.pepper.map(|it| it.status(What::Pepper)),
        signing_key: under_way.signing_key.map(|it| it.status(What::SigningKey)),
    })
}

/// Forgets the rotations that have ended. Both secrets must have been written.
pub fn forget_ended(sign_in: &mut Members) -> Result<(), SecretsError> {
    let mut under_way = read(sign_in)?;
    for what in What::ALL {
        let progress = under_way.of(what);
        *progress = progress.filter(|progress| progress.next(what).is_some());
    }
    write(sign_in, &under_way);
    Ok(())
}

/// Tells if something is being replaced.
pub fn is_under_way(sign_in: &Members, what: What) -> Result<bool, SecretsError> {
    Ok(read(sign_in)?.of(what).is_some())
}

/// A line for each, for a person.
impl fmt::Display for Rotations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, status) in [("pepper", &self.pepper), ("signing_key", &self.signing_key)] {
            match status {
                None => writeln!(f, "{name}: no rotation")?,
                Some(Status { step, next: None }) => writeln!(f, "{name}: {step:?}")?,
                Some(Status {
                    step,
                    next: Some(next),
                }) => writeln!(f, "{name}: {step:?}, {:?} from {}", next.step, next.due)?,
            }
        }
        Ok(())
    }
}

impl UnderWay {
    fn of(&mut self, what: What) -> &mut Option<Progress> {
        match what {
            What::Pepper => &mut self.pepper,
            What::SigningKey => &mut self.signing_key,
        }
    }
}

impl Progress {
    /// The next step and its time, in seconds since 1970; `None` if the rotation has ended.
    fn next(self, what: What) -> Option<(Step, u64)> {
        // CloudFront keeps the response with the keys, and verifiers fetch it from there.
        let known_to_verifiers = NOTICED + CACHE_LIFE + KEY_SET_LIFE;
        let (step, wait) = match (what, self.step) {
            // The pepper that this drops may have made codes until the last rotation was noticed. A
            // refresh can be retried for less than a code lives.
            (What::Pepper, Step::Added) => (Step::Used, NOTICED + LONGEST_LIFETIME),
            (What::SigningKey, Step::Added) => (Step::Used, known_to_verifiers),
            (What::SigningKey, Step::Used) => (
                Step::Dropped,
                known_to_verifiers + token::LIFETIME + token::LEEWAY,
            ),
            (What::Pepper, Step::Used) | (_, Step::Dropped) => return None,
        };
        Some((step, self.since + wait.as_secs()))
    }

    fn status(self, what: What) -> Status {
        let next = self.next(what);
        Status {
            step: self.step,
            next: next.map(|(step, due)| Next {
                step,
                due: rfc_3339(due),
            }),
        }
    }
}

impl What {
    pub const ALL: [Self; 2] = [Self::Pepper, Self::SigningKey];

    /// The member that both secrets hold.
    fn common_member(self) -> &'static str {
        match self {
            Self::Pepper => PEPPER,
            Self::SigningKey => PUBLIC_KEYS,
        }
    }
}

/// Gives the other secret what it has in common with the sign-in secret. Tells if it lacked that.
fn copy(what: What, sign_in: &Members, signup: &mut Members) -> bool {
    let member = what.common_member();
    match sign_in.get(member) {
        Some(value) if signup.get(member) != Some(value) => {
            signup.insert(member.to_owned(), value.clone());
            true
        }
        _ => false,
    }
}

/// Otherwise nothing says which one is in use.
fn expect_the_same(what: What, sign_in: &Members, signup: &Members) -> Result<(), SecretsError> {
    let is_same = match what {
        What::Pepper => required(sign_in, PEPPER)? == text(signup, PEPPER)?.unwrap_or_default(),
        // The sign-in secret need not hold any.
        What::SigningKey => true,
    };
    is_same.then_some(()).ok_or(SecretsError::Different(PEPPER))
}

fn add(what: What, sign_in: &mut Members, signup: &Members) -> Result<Step, SecretsError> {
    match what {
        What::Pepper => {
            let peppers = format!("{},{}", required(sign_in, PEPPER)?, new_pepper());
            set(sign_in, PEPPER, peppers);
        }
        What::SigningKey => {
            let new = new_private_key()?;
            let own = public_key(required(sign_in, PRIVATE_KEY)?)?;
            let others = [text(sign_in, PUBLIC_KEYS)?, text(signup, PUBLIC_KEYS)?];
            let mut keys = vec![own];
            let others = others.into_iter().flatten().flat_map(public_keys);
            for key in others.chain([public_key(&new)?]) {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
            set(sign_in, PUBLIC_KEYS, keys.concat());
            set(sign_in, NEXT_PRIVATE_KEY, new);
        }
    }
    Ok(Step::Added)
}

/// The pepper before the new one stays, and older ones go.
fn put_to_use(what: What, sign_in: &mut Members) -> Result<Step, SecretsError> {
    match what {
        What::Pepper => {
            let mut peppers: Vec<_> = required(sign_in, PEPPER)?.split(',').collect();
            peppers.rotate_right(1);
            peppers.truncate(2);
            let peppers = peppers.join(",");
            set(sign_in, PEPPER, peppers);
        }
        What::SigningKey => {
            let new = required(sign_in, NEXT_PRIVATE_KEY)?.to_owned();
            set(sign_in, PRIVATE_KEY, new);
            sign_in.remove(NEXT_PRIVATE_KEY);
        }
    }
    Ok(Step::Used)
}

fn drop_old_key(sign_in: &mut Members) -> Result<Step, SecretsError> {
    let own = public_key(required(sign_in, PRIVATE_KEY)?)?;
    set(sign_in, PUBLIC_KEYS, own);
    Ok(Step::Dropped)
}

/// A key that a rotation has just added leaked with the one in use.
fn replace(what: What, sign_in: &mut Members) -> Result<Step, SecretsError> {
    match what {
        What::Pepper => set(sign_in, PEPPER, new_pepper()),
        What::SigningKey => {
            let new = new_private_key()?;
            set(sign_in, PUBLIC_KEYS, public_key(&new)?);
            set(sign_in, PRIVATE_KEY, new);
            sign_in.remove(NEXT_PRIVATE_KEY);
        }
    }
    Ok(Step::Dropped)
}

fn read(sign_in: &Members) -> Result<UnderWay, SecretsError> {
    let Some(text) = text(sign_in, ROTATION)? else {
        return Ok(UnderWay::default());
    };
    serde_json::from_str(text).map_err(|_| SecretsError::BadRotation)
}

/// As a text, since functions take a secret for an object of texts.
fn write(sign_in: &mut Members, under_way: &UnderWay) {
    if under_way.pepper.is_none() && under_way.signing_key.is_none() {
        sign_in.remove(ROTATION);
    } else {
        // A plain struct always has a JSON form.
        let text = serde_json::to_string(under_way).unwrap_or_default();
        set(sign_in, ROTATION, text);
    }
}

fn set(members: &mut Members, name: &str, value: String) {
    members.insert(name.to_owned(), value.into());
}

fn new_private_key() -> Result<String, SecretsError> {
    token::new_private_key().map_err(|_| SecretsError::NoKey)
}

fn public_key(private_key: &str) -> Result<String, SecretsError> {
    token::public_key_of(private_key).ok_or(SecretsError::BadKey)
}

/// The keys of a `TOKEN_PUBLIC_KEYS`, each as we write one.
fn public_keys(text: &str) -> Vec<String> {
    const END: &str = "-----END PUBLIC KEY-----";
    let text = text.replace("\\n", "\n");
    let keys = text.split_inclusive(END).map(str::trim);
    keys.filter(|key| !key.is_empty())
        .map(|key| format!("{key}\n"))
        .collect()
}

fn rfc_3339(seconds: u64) -> String {
    let time = DateTime::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    // Only a year of five digits has no such form.
    time.fmt(Format::DateTime).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const PEPPER_ORDER: Order = Order {
        what: What::Pepper,
        leaked: false,
    };
    const KEY_ORDER: Order = Order {
        what: What::SigningKey,
        leaked: false,
    };

    /// Both secrets after a setup, and a clock.
    struct Pair {
        sign_in: Members,
        signup: Members,
        now: SystemTime,
    }

    impl Pair {
        fn new() -> Self {
            let key = token::new_private_key().unwrap();
            let members = |value: Value| value.as_object().unwrap().clone();
            Self {
                sign_in: members(json!({"OTP_PEPPER": "old", "TOKEN_PRIVATE_KEY": key})),
                signup: members(json!({
                    "OTP_PEPPER": "old",
                    "TOKEN_PUBLIC_KEYS": token::public_key_of(&key).unwrap(),
                    "TWILIO_AUTH_TOKEN": "t",
                })),
                now: UNIX_EPOCH + Duration::from_hours(500_000),
            }
        }

        /// A run that is not stopped.
        fn run(&mut self, order: Option<Order>) -> Rotations {
            let rotations = advance(&mut self.sign_in, &mut self.signup, order, self.now).unwrap();
            forget_ended(&mut self.sign_in).unwrap();
            rotations
        }

        /// A run that is stopped after the first write.
        fn stopped_run(&mut self, order: Option<Order>) {
            let mut lost = self.signup.clone();
            advance(&mut self.sign_in, &mut lost, order, self.now).unwrap();
            assert_ne!(lost, self.signup, "nothing to stop");
        }

        /// Lets time pass: a second less than `time`, in which nothing happens, and that second.
        fn after(&mut self, time: Duration) -> Rotations {
            let before = (self.sign_in.clone(), self.signup.clone());
            let due = self.now + time;
            self.now = due - Duration::from_secs(1);
            self.run(None);
            assert_eq!((&self.sign_in, &self.signup), (&before.0, &before.1));
            self.now = due;
            self.run(None)
        }

        fn peppers(&self) -> Vec<&str> {
            assert_eq!(self.sign_in[PEPPER], self.signup[PEPPER]);
            self.sign_in[PEPPER].as_str().unwrap().split(',').collect()
        }

        fn own_key(&self) -> String {
            public_key(self.sign_in[PRIVATE_KEY].as_str().unwrap()).unwrap()
        }

        fn published(&self) -> Vec<String> {
            public_keys(self.signup[PUBLIC_KEYS].as_str().unwrap())
        }
    }

    const TO_VERIFIERS: Duration = Duration::from_mins(150);

    #[test]
    fn a_pepper_is_known_before_it_is_used_and_the_one_before_it_stays() {
        let mut pair = Pair::new();
        let rotations = pair.run(Some(PEPPER_ORDER));
        assert_eq!(
            json!(rotations),
            json!({
                "pepper": {"step": "added", "next": {"step": "used", "due": "2027-01-15T08:25:00Z"}},
                "signing_key": null,
            })
        );
        let new = pair.peppers()[1].to_owned();
        assert!(new.len() == 64 && pair.peppers() == ["old", &new]);
        let rotations = pair.after(Duration::from_mins(25));
        assert_eq!(
            json!(rotations),
            json!({"pepper": {"step": "used"}, "signing_key": null})
        );
        assert_eq!(pair.peppers(), [&new, "old"]);
        assert!(!pair.sign_in.contains_key(ROTATION));

        pair.run(Some(PEPPER_ORDER));
        assert_eq!(pair.peppers()[..2], [&new, "old"]);
        let newest = pair.peppers()[2].to_owned();
        pair.after(Duration::from_mins(25));
        assert_eq!(pair.peppers(), [&newest, &new]);
        assert_eq!(pair.signup["TWILIO_AUTH_TOKEN"], "t");
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_until_its_last_token_has_expired() {
        let mut pair = Pair::new();
        let old = pair.own_key();
        pair.run(Some(KEY_ORDER));
        assert_eq!((pair.own_key(), pair.published().len()), (old.clone(), 2));
        let new = pair.published()[1].clone();
        pair.after(TO_VERIFIERS);
        assert_eq!(pair.own_key(), new);
        assert_eq!(pair.published(), [old, new.clone()]);
        assert!(!pair.sign_in.contains_key(NEXT_PRIVATE_KEY));
        pair.after(TO_VERIFIERS + token::LIFETIME + token::LEEWAY);
        assert_eq!((pair.own_key(), pair.published()), (new.clone(), vec![new]));
        assert!(!pair.sign_in.contains_key(ROTATION));
    }

    #[test]
    fn keys_that_were_added_by_hand_are_published_until_the_old_one_goes() {
        let mut pair = Pair::new();
        let old = pair.own_key();
        let other = public_key(&token::new_private_key().unwrap()).unwrap();
        // Without its last line break, and in one line.
        set(&mut pair.sign_in, PUBLIC_KEYS, other.trim().to_owned());
        set(
            &mut pair.signup,
            PUBLIC_KEYS,
            format!("{old}{other}").replace('\n', "\\n"),
        );
        pair.run(Some(KEY_ORDER));
        assert_eq!(pair.published()[..2], [old, other]);
        assert_eq!(pair.published().len(), 3);
    }

    #[test]
    fn a_run_that_stopped_between_the_secrets_is_completed_and_the_wait_begins_anew() {
        let code_life = Duration::from_mins(25);
        let token_life = TO_VERIFIERS + token::LIFETIME + token::LEEWAY;
        let leaked = |what| Order { what, leaked: true };
        // The order, the waits up to the run that stops, its step, and the wait from there.
        for (order, waits, step, wait) in [
            (PEPPER_ORDER, &[][..], Step::Added, Some(code_life)),
            (PEPPER_ORDER, &[code_life], Step::Used, None),
            (KEY_ORDER, &[], Step::Added, Some(TO_VERIFIERS)),
            (KEY_ORDER, &[TO_VERIFIERS, token_life], Step::Dropped, None),
            (leaked(What::Pepper), &[], Step::Dropped, None),
            (leaked(What::SigningKey), &[], Step::Dropped, None),
        ] {
            let mut pair = Pair::new();
            let mut orders = vec![None; waits.len()];
            orders.insert(0, Some(order));
            let last = orders.pop().unwrap();
            for (order, wait) in orders.into_iter().zip(waits) {
                pair.run(order);
                pair.now += *wait;
            }
            pair.stopped_run(last);
            // Nobody comes for longer than any wait.
            pair.now += Duration::from_hours(9);
            let Rotations {
                pepper,
                signing_key,
            } = pair.run(None);
            assert_eq!(pepper.or(signing_key).unwrap().step, step, "{order:?}");
            pair.peppers();
            assert_eq!(
                pair.sign_in.get(PUBLIC_KEYS).is_none(),
                order.what == What::Pepper
            );
            if let Some(wait) = wait {
                pair.after(wait);
            }
            let ended = wait.is_none() || order.what == What::Pepper;
            assert_eq!(!pair.sign_in.contains_key(ROTATION), ended, "{order:?}");
        }
    }

    #[test]
    fn what_has_leaked_is_gone_in_one_step_also_in_the_middle_of_a_rotation() {
        for begun in [false, true] {
            let mut pair = Pair::new();
            if begun {
                pair.run(Some(PEPPER_ORDER));
                pair.run(Some(KEY_ORDER));
            }
            let known = [pair.published(), vec![pair.own_key()]].concat();
            let peppers: Vec<_> = pair.peppers().into_iter().map(str::to_owned).collect();
            for what in What::ALL {
                let rotations = pair.run(Some(Order { what, leaked: true }));
                let status = match what {
                    What::Pepper => rotations.pepper,
                    What::SigningKey => rotations.signing_key,
                };
                let (step, next) = (Step::Dropped, None);
                assert_eq!(status, Some(Status { step, next }));
            }
            assert_eq!(pair.peppers().len(), 1);
            assert!(!peppers.contains(&pair.peppers()[0].to_owned()));
            assert_eq!(pair.published(), [pair.own_key()]);
            assert!(!known.contains(&pair.own_key()));
            assert!(!pair.sign_in.contains_key(NEXT_PRIVATE_KEY));
            assert!(!pair.sign_in.contains_key(ROTATION));
        }
    }

    #[test]
    fn an_order_that_is_repeated_begins_nothing_new_and_the_two_do_not_wait_for_each_other() {
        let mut pair = Pair::new();
        for order in [PEPPER_ORDER, KEY_ORDER, PEPPER_ORDER, KEY_ORDER] {
            pair.run(Some(order));
        }
        assert_eq!((pair.peppers().len(), pair.published().len()), (2, 2));
        pair.now += TO_VERIFIERS;
        let rotations = pair.run(None);
        assert_eq!(rotations.pepper.unwrap().step, Step::Used);
        assert_eq!(rotations.signing_key.unwrap().step, Step::Used);
        assert_eq!(pair.run(None).pepper, None);
    }

    #[test]
    fn nothing_is_begun_where_the_secrets_differ_or_are_not_set_up() {
        let mut pair = Pair::new();
        set(&mut pair.signup, PEPPER, "other".to_owned());
        let begin = |pair: &Pair, order| {
            let (mut sign_in, mut signup) = (pair.sign_in.clone(), pair.signup.clone());
            advance(&mut sign_in, &mut signup, Some(order), pair.now).unwrap_err()
        };
        let error = begin(&pair, PEPPER_ORDER);
        assert!(matches!(error, SecretsError::Different(PEPPER)));
        pair.sign_in.clear();
        for (order, name) in [(PEPPER_ORDER, PEPPER), (KEY_ORDER, PRIVATE_KEY)] {
            let error = begin(&pair, order).to_string();
            assert!(error.contains(name), "{error}");
        }
        set(&mut pair.sign_in, ROTATION, "hunter2".to_owned());
        let error = begin(&pair, PEPPER_ORDER);
        assert!(matches!(error, SecretsError::BadRotation));
    }
}
