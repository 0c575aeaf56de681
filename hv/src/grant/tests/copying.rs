//! Copies.

use super::*;

pub(super) fn side(gref: u64, domid: u16, offset: u16) -> GnttabCopyPtr {
    GnttabCopyPtr { u: gref, domid, offset, ..Default::default() }
}

pub(super) fn copy(
    bed: &Bed,
    guest: &mut Guest,
    source: GnttabCopyPtr,
    dest: GnttabCopyPtr,
    len: u16,
    flags: u16,
) -> i16 {
    let mut request = GnttabCopy { source, dest, len, flags, ..Default::default() };
    assert_eq!(guest.call_with(bed, CALL, GNTTABOP_COPY, &mut request), 0);
    request.status
}

#[test]
fn a_copy_moves_bytes_and_leaves_the_entries_unused() {
    let (bed, mut a, b) = guests();
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS | GTF_READONLY, 0, b.frames[3]);
    grant(&bed, &b, 9, GTF_PERMIT_ACCESS, 0, b.frames[4]);
    b.write(&bed, b.address(3) + 100, b"from the guest");
    let own = a.frames[2].0;
    let (in_flag, out_flag) = (GNTCOPY_SOURCE_GREF, GNTCOPY_DEST_GREF);
    assert_eq!(copy(&bed, &mut a, side(8, 1, 100), side(own, DOMID_SELF, 4), 14, in_flag), GNTST_OKAY);
    assert_eq!(&a.read::<[u8; 14]>(&bed, a.address(2) + 4), b"from the guest");
    assert_eq!(copy(&bed, &mut a, side(own, DOMID_SELF, 9), side(9, 1, 4091), 5, out_flag), GNTST_OKAY);
    assert_eq!(&b.read::<[u8; 5]>(&bed, b.address(4) + 4091), b"the g");
    assert_eq!(flags(&bed, &b, 8), GTF_PERMIT_ACCESS | GTF_READONLY);
    assert_eq!(flags(&bed, &b, 9), GTF_PERMIT_ACCESS);
    assert_eq!(references(&bed, b.frames[4]), references(&bed, b.frames[5]));
}

#[test]
fn each_refused_copy_says_why() {
    let (bed, mut a, b) = guests();
    grant(&bed, &b, 8, GTF_PERMIT_ACCESS | GTF_READONLY, 0, b.frames[3]);
    let own = a.frames[2].0;
    let (in_flag, out_flag) = (GNTCOPY_SOURCE_GREF, GNTCOPY_DEST_GREF);
    let here = side(own, DOMID_SELF, 0);
    assert_eq!(copy(&bed, &mut a, side(8, 1, 4000), here, 97, in_flag), GNTST_BAD_COPY_ARG);
    assert_eq!(copy(&bed, &mut a, side(8, 1, 0), side(own, DOMID_SELF, 4096), 1, in_flag), GNTST_BAD_COPY_ARG);
    assert_eq!(copy(&bed, &mut a, side(b.frames[3].0, 1, 0), here, 8, 0), GNTST_PERMISSION_DENIED);
    assert_eq!(copy(&bed, &mut a, side(b.frames[3].0, DOMID_SELF, 0), here, 8, 0), GNTST_BAD_PAGE);
    assert_eq!(copy(&bed, &mut a, here, side(8, 1, 0), 8, out_flag), GNTST_GENERAL_ERROR, "granted for reading");
    assert_eq!(copy(&bed, &mut a, side(700, 1, 0), here, 8, in_flag), GNTST_BAD_GNTREF);
    assert_eq!(copy(&bed, &mut a, side(8, 9, 0), here, 8, in_flag), GNTST_BAD_DOMAIN);
    let table = side(a.tables[3].0, DOMID_SELF, 0);
    assert_eq!(copy(&bed, &mut a, here, table, 8, 0), GNTST_GENERAL_ERROR, "over a page table");
    assert_eq!(references(&bed, a.frames[2]), references(&bed, a.frames[3]));
    assert_eq!(broken_rules(), ["GNT-19", "GNT-19", "GNT-20", "GNT-21", "GNT-07", "GNT-05", "GNT-03", "MMU-02"]);
}
