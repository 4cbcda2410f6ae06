//! All kinds of code and packages, each as a task that has to complete.

use crate::canary::{assert_no_file_has, watched};
use crate::case::run_all;
use crate::place::{INDEX_PASS, INDEX_PASS_IN_URL, PASS, Place};
use crate::web::basic;
use crate::{code, packages};

#[test]
fn every_kind_of_code_and_packages_runs_and_no_login_is_to_be_seen() {
    let test = "every_kind_of_code_and_packages_runs_and_no_login_is_to_be_seen";
    let place = Place::new(test);
    let (mut cases, _ssh) = code::cases(&place, test);
    cases.extend(packages::cases(&place));
    let encoded = |pass| basic("robot", pass).split_off("Basic ".len());
    let (git, index) = (encoded(PASS), encoded(INDEX_PASS));
    let secrets = [PASS, "ge%24heim", &git, INDEX_PASS, INDEX_PASS_IN_URL, &index];
    watched(&secrets, || {
        run_all(&place.scene, &place.options(), cases, &secrets)
    });
    // The configuration has them, and that lies elsewhere.
    for folder in ["home", "server"] {
        assert_no_file_has(&secrets, &place.path(folder));
    }
    assert!(place.open.requests() > 0, "the submodule came from elsewhere");
    assert_eq!(place.open.logins(), [""; 0], "another server was shown a login");
    assert!(place.closed.logins().contains(&basic("robot", PASS)));
    assert!(place.index.logins().contains(&basic("robot", INDEX_PASS)));
}
