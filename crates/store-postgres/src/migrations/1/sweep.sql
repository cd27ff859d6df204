-- The removal of expired rows, in small commits.

create function {s}.rg_sweep(
    p_known bytea, p_limit integer, out o_status text, out o_sessions bigint, out o_revocations bigint,
    out o_more boolean, out o_writes bigint
) language plpgsql as $$
declare
    right_now bigint := {s}.rg_now();
    ended bigint := right_now - 3600000;
    logged bigint;
    top bigint;
    counted bigint;
    remembered bigint;
begin
    perform {s}.rg_begin(p_known, true);
    o_status := 'swept';
    o_sessions := 0;
    o_revocations := 0;
    o_more := false;
    select last_value into o_writes from {s}.writes;
    -- The number is written to a mark, so a crash must not reset it to a lower number.
    perform {s}.rg_touch();
    -- One node at a time can do this.
    if not pg_try_advisory_xact_lock(hashtext('{s}'), 3) then
        return;
    end if;
    delete from {s}.session where id in (
        select id from {s}.session where ends < ended order by ends limit p_limit for update skip locked
    );
    get diagnostics o_sessions = row_count;
    delete from {s}.revocation where key in (
        select key from {s}.revocation where until < ended order by until limit p_limit for update skip locked
    );
    get diagnostics o_revocations = row_count;
    with gone as (
        delete from {s}.revocation_log where id in (
            select id from {s}.revocation_log where written < ended + 2700000 order by id limit p_limit * 8
        ) returning id
    )
    select count(*), max(id) into logged, top from gone;
    if logged > 0 then
        update {s}.head set floor = greatest(floor, top);
    end if;
    delete from {s}.counter where name in (
        select name from {s}.counter where full_at < right_now * 1000 order by full_at limit p_limit * 8
            for update skip locked
    );
    get diagnostics counted = row_count;
    delete from {s}.remembered where name in (
        select name from {s}.remembered r where r.until < right_now order by r.until limit p_limit * 8
            for update skip locked
    );
    get diagnostics remembered = row_count;
    delete from {s}.change c where c.until < right_now;
    -- Rows of nodes are kept for 25 hours, or for an hour if there are many.
    delete from {s}.node where beat < case when (select count(*) from {s}.node) > 1000 then ended
        else right_now - 90000000 end;
    o_more := o_sessions >= p_limit or o_revocations >= p_limit
        or greatest(logged, counted, remembered) >= p_limit * 8;
end
$$;
