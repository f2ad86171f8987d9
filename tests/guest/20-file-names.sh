# Every byte of a file name means itself. Each pair is a disk of the guest, and a file that the disk's name
# would match, or end at, if it were a pattern or profile syntax.
case_timeout=120

pairs() {
    printf '%s\n' \
        'a*b.img|aXYb.img' \
        'c?d.img|cXd.img' \
        'e[xy]f.img|exf.img' \
        'g[^x]h.img|gyh.img' \
        'i{x,y}j.img|ixj.img' \
        'k,l.img|k' \
        'm@{pid}n.img|m1n.img' \
        'o@p.img|o' \
        'q\130r.img|qXr.img' \
        's\|s' \
        't"u.img|t' \
        'v#w.img|v' \
        'x y.img|x' \
        $'z\tA.img|z' \
        'Bäß日.img|Bäß月.img' \
        'C^D.img|CD.img' \
        'E[F.img|EF.img' \
        'G]H.img|GH.img' \
        'I{J.img|IJ.img' \
        'K}L.img|KL.img' \
        'M**.img|Mx.img'
}

case_each_name_means_itself() {
    local dir=$IMAGES/names own=() neighbours=() pair
    mkdir -p "$dir"
    while IFS= read -r pair; do
        own+=("$dir/${pair%%|*}")
        neighbours+=("$dir/${pair#*|}")
    done < <(pairs)
    [ "${#own[@]}" = 21 ]
    local path
    for path in "${own[@]}" "${neighbours[@]}"; do truncate -s 64k "$path"; done
    UUID=$(new_uuid)
    domain_xml names "$UUID" "${own[@]}" >names.xml
    confine_guest names.xml
    start_qemu names "$UUID"
    for path in "${own[@]}"; do
        echo "own: $path"
        opens names "$path"
    done
    for path in "${neighbours[@]}"; do
        echo "neighbour: $path"
        cannot_open names "$path"
    done
}
