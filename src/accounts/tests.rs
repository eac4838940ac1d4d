//! The room as a whole, on a database of its own and a clock set by hand.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use super::*;
use crate::accounts::model::Change;
use crate::accounts::model::Filter;
use crate::accounts::model::Introduction;
use crate::support::clock::Instant;
use crate::support::page::Page;

const PASSWORD: &str = "correct horse";
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const ALL: Page = Page { offset: 0, limit: 100 };

struct Room {
    accounts: Accounts,
    clock: Clock,
}

fn room() -> Room {
    room_by(Config::default())
}

fn room_by(config: Config) -> Room {
    let clock = Clock::by_hand(Instant(1_700_000_000_000));
    let db = Db::temporary(crate::app::SCHEMA, clock.clone()).unwrap();
    let master = MasterKey::derive(&[9; 32]).unwrap();
    Room { accounts: Accounts::new(config, db, clock.clone(), Cpu::open(4), master), clock }
}

async fn add(room: &Room, name: &str, role: Role) -> (User, Keys) {
    room.accounts.create(format!("{name}@example.com"), PASSWORD.to_owned(), role, None).await.unwrap()
}

async fn log_in(room: &Room, name: &str, password: &str, otp: Option<&str>, from: IpAddr) -> Result<Login> {
    let credentials = Credentials {
        email: format!("{name}@example.com"),
        password: password.to_owned(),
        otp: otp.map(str::to_owned),
    };
    room.accounts.login(credentials, Network::of(from)).await
}

fn code<T>(outcome: Result<T>) -> Code {
    outcome.err().map_or_else(|| panic!("it was accepted"), |e| e.code)
}

fn invite(name: &str) -> Introduction {
    Introduction {
        email: format!("{name}@example.com"),
        first_name: "Ada".into(),
        last_name: String::new(),
        locale: "de".into(),
        role: Role::Creator,
        enabled: true,
        password: None,
    }
}

#[tokio::test]
async fn there_is_always_an_administrator() {
    let room = room();
    let (first, _) = add(&room, "first", Role::Admin).await;
    let (user, _) = add(&room, "user", Role::User).await;
    let accounts = &room.accounts;
    let demoted = || Change { role: Some(Role::User), ..Change::default() };
    let disabled = || Change { enabled: Some(false), ..Change::default() };
    assert_eq!(code(accounts.change(first.id, demoted()).await), Code::Conflict);
    assert_eq!(code(accounts.change(first.id, disabled()).await), Code::Conflict);
    assert_eq!(code(accounts.remove(first.id).await), Code::Conflict);
    // Somebody who is only invited cannot log in and does not count.
    let said = Introduction { role: Role::Admin, ..invite("guest") };
    accounts.introduce_person(said).await.unwrap();
    assert_eq!(code(accounts.remove(first.id).await), Code::Conflict);
    assert!(accounts.person(first.id).await.unwrap().user.enabled, "nothing was kept");

    accounts.change(user.id, Change { role: Some(Role::Admin), ..Change::default() }).await.unwrap();
    accounts.remove(first.id).await.unwrap();
    assert_eq!(code(accounts.person(first.id).await), Code::UserNotFound);
    let (next, _) = add(&room, "next", Role::User).await;
    assert!(next.id > user.id + 1, "a number is never given twice");
}

#[tokio::test]
async fn what_was_changed_holds_at_once() {
    let room = room();
    let accounts = &room.accounts;
    add(&room, "admin", Role::Admin).await;
    let (user, keys) = add(&room, "user", Role::Creator).await;
    let token = log_in(&room, "user", PASSWORD, None, HOME).await.unwrap().token;
    assert!(accounts.by_token(&token).await.is_ok());
    assert!(accounts.by_api_key(&keys.api_key).await.is_ok());
    assert!(accounts.by_upload_key(&keys.upload_key).await.is_ok());
    assert!(accounts.by_api_key(&keys.upload_key).await.is_err(), "an upload key is no API key");
    assert!(accounts.by_upload_key(&keys.api_key).await.is_err());

    accounts.change(user.id, Change { enabled: Some(false), ..Change::default() }).await.unwrap();
    assert_eq!(code(accounts.by_token(&token).await), Code::Forbidden);
    assert_eq!(code(accounts.by_api_key(&keys.api_key).await), Code::Forbidden);
    assert_eq!(code(accounts.by_upload_key(&keys.upload_key).await), Code::Forbidden);
    assert_eq!(code(log_in(&room, "user", PASSWORD, None, HOME).await), Code::Unauthorized);
    accounts.change(user.id, Change { enabled: Some(true), ..Change::default() }).await.unwrap();
    assert!(accounts.by_api_key(&keys.api_key).await.is_ok());
    assert_eq!(code(accounts.by_token(&token).await), Code::Unauthorized, "tokens of before stay ended");

    let token = log_in(&room, "user", PASSWORD, None, HOME).await.unwrap().token;
    accounts.log_out(user.id).await.unwrap();
    assert!(accounts.by_token(&token).await.is_err());

    let token = log_in(&room, "user", PASSWORD, None, HOME).await.unwrap().token;
    let from = Network::of(HOME);
    let new = || Some("another horse".to_owned());
    let wrong = accounts.change_self(user.id, Change::default(), Some("wrong".into()), new(), from).await;
    assert_eq!(code(wrong), Code::Forbidden);
    let bare = accounts.change_self(user.id, Change::default(), None, new(), from).await;
    assert_eq!(code(bare), Code::MissingParameter);
    let sneaky = Change { role: Some(Role::Admin), first_name: Some("Ada".into()), ..Change::default() };
    let person = accounts.change_self(user.id, sneaky, Some(PASSWORD.into()), new(), from).await.unwrap();
    assert_eq!((person.user.role, &*person.user.first_name), (Role::Creator, "Ada"));
    assert!(accounts.by_token(&token).await.is_err());
    assert!(log_in(&room, "user", PASSWORD, None, HOME).await.is_err());
    assert!(log_in(&room, "user", "another horse", None, HOME).await.is_ok());
}

#[tokio::test]
async fn an_invitation_works_once_and_ends_by_itself() {
    let room = room();
    let accounts = &room.accounts;
    add(&room, "admin", Role::Admin).await;
    let (person, invitation) = accounts.introduce_person(invite("ada")).await.unwrap();
    let token = invitation.unwrap().token;
    assert!(person.api_key.is_none() && person.user.password_hash.is_none());
    assert_eq!(code(log_in(&room, "ada", "", None, HOME).await), Code::Unauthorized);
    assert_eq!(code(accounts.introduce_person(invite("ADA")).await), Code::Conflict);

    let accept = |token: &str| {
        let change = Change { last_name: Some("L".into()), role: Some(Role::Admin), ..Change::default() };
        accounts.accept(token.to_owned(), "a new password".into(), change)
    };
    let again = accounts.invite_again(person.user.id).await.unwrap().token;
    assert_eq!(code(accept(&token).await), Code::NotFound, "the old link ended");
    room.clock.advance(Duration::from_hours(24 * 7));
    assert_eq!(code(accept(&again).await), Code::NotFound, "too late");
    let again = accounts.invite_again(person.user.id).await.unwrap().token;
    assert_eq!(code(accounts.accept(again.clone(), "short".into(), Change::default()).await), Code::InvalidRequest);
    assert_eq!(accounts.invited(&again).await.unwrap().email, "ada@example.com");
    let accepted = accept(&again).await.unwrap();
    assert_eq!((accepted.user.role, &*accepted.user.last_name), (Role::Creator, "L"));
    assert!(accounts.by_api_key(&accepted.api_key.unwrap()).await.is_ok());
    assert!(log_in(&room, "ada", "a new password", None, HOME).await.is_ok());
    assert_eq!(code(accept(&again).await), Code::NotFound, "once");
    assert_eq!(code(accounts.invite_again(person.user.id).await), Code::Conflict);
}

#[tokio::test]
async fn keys_overlap_for_a_stated_time() {
    let room = room();
    let accounts = &room.accounts;
    let (user, old) = add(&room, "admin", Role::Admin).await;
    let (other, others) = add(&room, "other", Role::Admin).await;
    let hour = Duration::from_hours(1);
    let access_id = user.access_id.clone();
    let new = accounts.rotate(user.id, CredentialKind::Api, NewKey::Random, hour).await.unwrap();
    assert!(accounts.by_api_key(&old.api_key).await.is_ok() && accounts.by_api_key(&new).await.is_ok());
    let signing = accounts.signer(&access_id).await.unwrap().unwrap().api_keys;
    assert_eq!(signing, [old.api_key.clone(), new.clone()], "links signed with the old one are good while it lives");
    assert_eq!(accounts.signing(user.id).await.unwrap().1, new);
    let listed = accounts.list_keys(user.id).await.unwrap();
    let expiring: Vec<bool> = listed.iter().map(|key| key.expires_at.is_some()).collect();
    assert_eq!(expiring, [true, false, false], "{listed:?}");
    assert!(old.api_key.starts_with(&listed[0].hint));

    room.clock.advance(hour);
    // An answer may be remembered for some seconds of real time, so whoever rotates forgets.
    let newest = accounts.rotate(user.id, CredentialKind::Api, NewKey::Random, Duration::ZERO).await.unwrap();
    assert!(accounts.by_api_key(&old.api_key).await.is_err());
    assert!(accounts.by_api_key(&new).await.is_err(), "at once");
    let signing = accounts.signer(&access_id).await.unwrap().unwrap().api_keys;
    assert_eq!(signing, std::slice::from_ref(&newest));

    // A text of one's own; the same again changes nothing; going back makes the old one present.
    let mine = "a".repeat(32);
    let given = |text: &str| NewKey::Given(text.to_owned());
    accounts.rotate(user.id, CredentialKind::Api, given(&mine), hour).await.unwrap();
    accounts.rotate(user.id, CredentialKind::Api, given(&mine), Duration::ZERO).await.unwrap();
    assert!(accounts.by_api_key(&newest).await.is_ok(), "nothing was rotated");
    accounts.rotate(user.id, CredentialKind::Api, given(&newest), hour).await.unwrap();
    assert_eq!(accounts.signing(user.id).await.unwrap().1, newest);
    for (text, expected) in
        [("short", Code::InvalidRequest), (&others.api_key, Code::Conflict), (&old.upload_key, Code::Conflict)]
    {
        let refused = accounts.rotate(user.id, CredentialKind::Api, given(text), hour).await;
        assert_eq!(code(refused), expected, "{text}");
    }
    assert_eq!(accounts.signing(user.id).await.unwrap().1, newest, "a refusal changes nothing");

    let id = accounts.list_keys(user.id).await.unwrap().last().unwrap().id;
    assert_eq!(code(accounts.revoke(other.id, id).await), Code::KeyNotFound, "of another");
    for key in accounts.list_keys(user.id).await.unwrap() {
        accounts.revoke(user.id, key.id).await.unwrap();
    }
    assert!(accounts.by_api_key(&newest).await.is_err());
    assert_eq!(code(accounts.signing(user.id).await), Code::Forbidden);
    assert!(log_in(&room, "admin", PASSWORD, None, HOME).await.is_ok(), "the password remains");
}

#[tokio::test]
async fn a_page_may_describe_what_it_handed_in_for_a_while() {
    let room = room();
    let accounts = &room.accounts;
    let (user, keys) = add(&room, "creator", Role::Creator).await;
    let page = accounts.by_upload_key(&keys.upload_key).await.unwrap();
    assert!(page.may(Permission::EditAssetOrHandedIn));
    let (ours, theirs) = ("a".repeat(32), "b".repeat(32));
    accounts.note_handed_in(&page, vec![ours.clone()]).await.unwrap();
    assert!(accounts.may_describe(&page, &ours).await.is_ok());
    assert_eq!(code(accounts.may_describe(&page, &theirs).await), Code::Forbidden);
    accounts.rotate(user.id, CredentialKind::Upload, NewKey::Random, Duration::from_hours(1)).await.unwrap();
    let successor = accounts.person(user.id).await.unwrap().upload_key.unwrap();
    let successor = accounts.by_upload_key(&successor).await.unwrap();
    assert_eq!(code(accounts.may_describe(&successor, &ours).await), Code::Forbidden, "another key");
    room.clock.advance(Duration::from_mins(59));
    assert!(accounts.may_describe(&page, &ours).await.is_ok());
    room.clock.advance(Duration::from_mins(1));
    assert_eq!(code(accounts.may_describe(&page, &ours).await), Code::Forbidden, "too late");
    // Roles are the table's business.
    assert!(accounts.may_describe(&Caller::of(&user), &theirs).await.is_ok());
}

#[tokio::test]
async fn a_second_factor() {
    let room = room();
    let accounts = &room.accounts;
    let (user, _) = add(&room, "admin", Role::Admin).await;
    let from = Network::of(HOME);
    assert_eq!(code(accounts.enrol(user.id, "wrong".into(), from).await), Code::Forbidden);
    let secret = accounts.enrol(user.id, PASSWORD.into(), from).await.unwrap().secret;
    assert!(log_in(&room, "admin", PASSWORD, None, HOME).await.is_ok(), "not asked for before it is confirmed");
    let now = |room: &Room| totp::now(&secret, room.clock.now());
    assert_eq!(code(accounts.confirm(user.id, "000000".into()).await), Code::InvalidRequest);
    let first = now(&room);
    let spare = accounts.confirm(user.id, format!(" {} {} ", &first[..3], &first[3..])).await.unwrap();
    assert_eq!(spare.len(), 10);
    let state = second_factor::SecondFactorState { enabled: true, recovery_codes_left: 10 };
    assert_eq!(accounts.second_factor(user.id).await.unwrap(), state);
    assert_eq!(code(accounts.enrol(user.id, PASSWORD.into(), from).await), Code::Conflict);

    assert_eq!(code(log_in(&room, "admin", PASSWORD, None, HOME).await), Code::SecondFactorRequired);
    assert_eq!(code(log_in(&room, "admin", "wrong", None, ELSEWHERE).await), Code::Unauthorized, "in this order");
    assert_eq!(code(log_in(&room, "admin", PASSWORD, Some(&first), HOME).await), Code::Unauthorized, "a replay");
    room.clock.advance(Duration::from_secs(30));
    let next = now(&room);
    assert!(log_in(&room, "admin", PASSWORD, Some(&next), HOME).await.is_ok());
    assert_eq!(code(log_in(&room, "admin", PASSWORD, Some(&next), HOME).await), Code::Unauthorized, "a replay");
    let typed = spare[0].to_lowercase().replace('-', " ");
    assert!(log_in(&room, "admin", PASSWORD, Some(&typed), HOME).await.is_ok());
    assert_eq!(code(log_in(&room, "admin", PASSWORD, Some(&spare[0]), HOME).await), Code::Unauthorized, "once");
    assert_eq!(accounts.second_factor(user.id).await.unwrap().recovery_codes_left, 9);

    // Codes are few, so tries are fewer; whoever tries knows the password, so this locks nobody else out.
    let mut tries = 0;
    while code(log_in(&room, "admin", PASSWORD, Some("123456"), ELSEWHERE).await) == Code::Unauthorized {
        tries += 1;
        assert!(tries < 6);
    }
    let refused = log_in(&room, "admin", PASSWORD, Some(&spare[1]), HOME).await;
    assert_eq!(code(refused), Code::TooManyRequests, "from everywhere");

    accounts.reset_second_factor(user.id).await.unwrap();
    assert_eq!(code(accounts.reset_second_factor(user.id).await), Code::NotFound);
    assert!(log_in(&room, "admin", PASSWORD, None, HOME).await.is_ok());
}

#[tokio::test]
async fn disabling_the_second_factor_takes_both() {
    let room = room();
    let accounts = &room.accounts;
    let (user, _) = add(&room, "admin", Role::Admin).await;
    let from = Network::of(HOME);
    let secret = accounts.enrol(user.id, PASSWORD.into(), from).await.unwrap().secret;
    accounts.confirm(user.id, totp::now(&secret, room.clock.now())).await.unwrap();
    room.clock.advance(Duration::from_secs(30));
    let code_now = totp::now(&secret, room.clock.now());
    let disable =
        |password: &str, otp: &str| accounts.disable_second_factor(user.id, password.to_owned(), otp.to_owned(), from);
    assert_eq!(code(disable("wrong", &code_now).await), Code::Forbidden);
    assert_eq!(code(disable(PASSWORD, "").await), Code::SecondFactorRequired);
    assert_eq!(code(disable(PASSWORD, "111111").await), Code::Unauthorized);
    disable(PASSWORD, &code_now).await.unwrap();
    assert!(log_in(&room, "admin", PASSWORD, None, HOME).await.is_ok());
}

#[tokio::test]
async fn whoever_tried_too_often_waits_and_nobody_else() {
    let room = room_by(Config { logins_per_account: 1, ..Config::default() });
    add(&room, "admin", Role::Admin).await;
    for who in ["admin", "nobody"] {
        assert_eq!(code(log_in(&room, who, "wrong", None, HOME).await), Code::Unauthorized, "{who}");
        let refused = log_in(&room, who, "wrong", None, HOME).await.err().unwrap();
        assert_eq!(refused.code, Code::TooManyRequests, "{who}");
        let wait = refused.again_after.unwrap();
        assert!(wait <= Duration::from_mins(1), "{who}: {wait:?}");
    }
    assert_eq!(code(log_in(&room, "Admin", PASSWORD, None, HOME).await), Code::TooManyRequests, "spelled otherwise");
    for _ in 0..3 {
        assert!(log_in(&room, "admin", PASSWORD, None, ELSEWHERE).await.is_ok(), "right ones cost nothing");
    }
}

#[tokio::test]
async fn people_are_found() {
    let room = room();
    let accounts = &room.accounts;
    add(&room, "admin", Role::Admin).await;
    add(&room, "per%cent", Role::User).await;
    accounts.introduce_person(invite("ada")).await.unwrap();
    let found = async |filter: Filter| {
        let (people, total) = accounts.people(filter, ALL).await.unwrap();
        assert_eq!(people.len() as u64, total);
        people.into_iter().map(|person| person.user.email.replace("@example.com", "")).collect::<Vec<_>>()
    };
    let keyword = |text: &str| Filter { keyword: Some(text.to_owned()), ..Filter::default() };
    assert_eq!(found(Filter::default()).await, ["admin", "per%cent", "ada"]);
    assert_eq!(found(keyword("AD")).await, ["admin", "ada"]);
    assert_eq!(found(keyword("%")).await, ["per%cent"], "no pattern");
    assert_eq!(found(keyword("'; DROP TABLE user; --")).await, [""; 0]);
    assert_eq!(found(Filter { invited: Some(true), ..Filter::default() }).await, ["ada"]);
    assert_eq!(found(Filter { role: Some(Role::User), ..Filter::default() }).await, ["per%cent"]);
    let (people, total) = accounts.people(Filter::default(), Page { offset: 1, limit: 1 }).await.unwrap();
    assert_eq!((people.len(), total, &*people[0].user.email), (1, 3, "per%cent@example.com"));
}

#[tokio::test]
async fn what_was_read_before_a_revocation_is_not_believed_after_it() {
    let room = room();
    let (user, keys) = add(&room, "ada", Role::Admin).await;
    let accounts = &room.accounts;
    let key = (CredentialKind::Api, accounts.master.lookup(&keys.api_key));
    let look = accounts.by_key.look();
    let holder = Holder { caller: Caller::of(&user), epoch: 0, enabled: true };
    accounts.by_key.remember(look, key, Some(holder.clone()));
    assert!(accounts.by_key.get(&key).is_some());
    accounts.log_out(user.id).await.unwrap();
    assert!(accounts.by_key.get(&key).is_none());
    accounts.by_key.remember(look, key, Some(holder));
    assert!(accounts.by_key.get(&key).is_none(), "read before, remembered after");
}

#[tokio::test]
async fn a_change_of_oneself_is_made_whole() {
    let room = room();
    let (user, _) = add(&room, "ada", Role::Admin).await;
    let change = Change { first_name: Some("Augusta".into()), ..Change::default() };
    let from = Network::of(HOME);
    let writes = room.accounts.db.stats().writes;
    let new = Some("another horse, correct".to_owned());
    let person = room.accounts.change_self(user.id, change, Some(PASSWORD.into()), new, from).await.unwrap();
    assert_eq!(room.accounts.db.stats().writes, writes + 1, "name and password in one transaction");
    assert_eq!(person.user.first_name, "Augusta");
    log_in(&room, "ada", "another horse, correct", None, HOME).await.unwrap();
    assert_eq!(code(log_in(&room, "ada", PASSWORD, None, ELSEWHERE).await), Code::Unauthorized);
}
