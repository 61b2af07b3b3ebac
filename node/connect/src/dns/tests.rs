use std::os::unix::fs::symlink;

use super::*;

fn servers(last: u8) -> Vec<IpAddr> {
    vec![[10, 66, 0, last].into()]
}

fn file(directory: &tempfile::TempDir) -> ResolvConf {
    ResolvConf::new(&directory.path().join("resolv.conf"), &directory.path().join("elsewhere"))
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn names(directory: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).expect("it is there");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn the_file_before_comes_back_and_nothing_is_left() {
    let directory = directory();
    let file = file(&directory);
    fs::write(&file.path, "nameserver 192.0.2.1\n").expect("written");
    let inode = fs::metadata(&file.path).expect("there").ino();
    for last in [1, 1, 2] {
        file.set(&servers(last)).expect("set");
        assert_eq!(fs::read_to_string(&file.path).expect("there"), render(&servers(last)));
    }
    for _ in 0..2 {
        file.restore().expect("restored");
        assert_eq!(fs::read_to_string(&file.path).expect("there"), "nameserver 192.0.2.1\n");
    }
    assert_eq!(fs::metadata(&file.path).expect("there").ino(), inode, "the very same file");
    assert_eq!(names(&directory), ["resolv.conf"]);
}

#[test]
fn a_symbolic_link_comes_back_as_one() {
    let directory = directory();
    let file = file(&directory);
    let target = directory.path().join("stub");
    fs::write(&target, "nameserver 127.0.0.53\n").expect("written");
    symlink(&target, &file.path).expect("linked");
    file.set(&servers(1)).expect("set");
    assert_eq!(fs::read_to_string(&target).expect("there"), "nameserver 127.0.0.53\n");
    file.restore().expect("restored");
    assert_eq!(fs::read_link(&file.path).expect("a link"), target);
}

#[test]
fn a_change_by_another_program_is_what_comes_back() {
    let directory = directory();
    let file = file(&directory);
    fs::write(&file.path, "nameserver 192.0.2.1\n").expect("written");
    file.set(&servers(1)).expect("set");
    fs::write(&file.path, "nameserver 192.0.2.2\n").expect("written");
    file.set(&servers(1)).expect("set again");
    file.restore().expect("restored");
    assert_eq!(fs::read_to_string(&file.path).expect("there"), "nameserver 192.0.2.2\n");
    file.set(&servers(1)).expect("set");
    fs::write(&file.path, "nameserver 192.0.2.3\n").expect("written");
    file.restore().expect("nothing to restore");
    assert_eq!(fs::read_to_string(&file.path).expect("there"), "nameserver 192.0.2.3\n");
    assert_eq!(names(&directory), ["resolv.conf"]);
}

#[test]
fn a_file_that_cannot_be_renamed_is_written_in_place() {
    let directory = directory();
    let file = ResolvConf { is_mount: true, ..file(&directory) };
    let file = ResolvConf { backup: directory.path().join("elsewhere"), ..file };
    fs::write(&file.path, "nameserver 192.0.2.1\n").expect("written");
    let inode = fs::metadata(&file.path).expect("there").ino();
    file.set(&servers(1)).expect("set");
    assert_eq!(fs::read_to_string(&file.path).expect("there"), render(&servers(1)));
    file.restore().expect("restored");
    assert_eq!(fs::read_to_string(&file.path).expect("there"), "nameserver 192.0.2.1\n");
    assert_eq!(fs::metadata(&file.path).expect("there").ino(), inode);
    assert_eq!(names(&directory), ["resolv.conf"]);
}

#[test]
fn a_crash_between_the_copy_and_the_change_loses_nothing() {
    let directory = directory();
    let file = file(&directory);
    fs::write(&file.path, "nameserver 192.0.2.1\n").expect("written");
    file.keep().expect("kept");
    // Here it is killed, and started again.
    file.set(&servers(1)).expect("set");
    file.restore().expect("restored");
    assert_eq!(fs::read_to_string(&file.path).expect("there"), "nameserver 192.0.2.1\n");
}
